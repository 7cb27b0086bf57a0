"""timm and torchaudio import beside whatever torch is installed."""

import subprocess
import sys

CODE = """
from abaw._compat import prepare_timm, prepare_torchaudio
first = prepare_timm(), prepare_torchaudio()
import timm, torchaudio, torch
from torchaudio.transforms import MelSpectrogram, Resample
assert MelSpectrogram(16000)(torch.zeros(1600)).shape[0] == 128
assert Resample(8000, 16000)(torch.zeros(800)).shape == (1600,)
assert timm.create_model("vit_tiny_patch16_224", num_classes=0)(torch.zeros(1, 3, 224, 224)).shape == (1, 192)
assert (prepare_timm(), prepare_torchaudio()) == first
"""


def test_timm_and_torchaudio_import_and_work_after_preparation() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
