"""Weights and their header on disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from abaw.checkpoint import load_checkpoint, load_weights, read_header, save_checkpoint
from abaw.errors import AbawError, ExitCode

HEADER = {"kind": "mae", "pooling": "cls", "trained_on": []}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "w.safetensors", {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, HEADER)
    return tmp_path / "w.safetensors"


def test_what_is_saved_is_loaded(file: Path) -> None:
    weights, header = load_checkpoint(file, kind="mae")
    assert torch.equal(weights["weight"], torch.ones(2, 3))
    unknown = {"fingerprint": "unknown", "settings": {}}
    assert header == {"recipe": unknown, **HEADER, "format_version": 1}


def test_no_temporary_file_is_left(file: Path) -> None:
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_header_is_read_without_torch(file: Path) -> None:
    code = f"""
import sys, pathlib
from abaw.checkpoint import read_header
assert read_header(pathlib.Path({str(file)!r}))["kind"] == "mae"
assert "torch" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_file_is_exit_code_5(tmp_path: Path) -> None:
    with pytest.raises(AbawError) as caught:
        read_header(tmp_path / "none.safetensors")
    assert caught.value.code is ExitCode.MISSING


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_cut_off_file_is_refused(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(AbawError, match="not a readable weights file"):
        load_checkpoint(file)


def test_another_kind_is_refused(file: Path) -> None:
    with pytest.raises(AbawError, match='"mae", not "static"'):
        load_checkpoint(file, kind="static")


def test_a_foreign_file_without_header_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(1)}, tmp_path / "f.safetensors", metadata={"format": json.dumps("pt")})
    with pytest.raises(AbawError, match="without the header"):
        read_header(tmp_path / "f.safetensors")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AbawError, match="could not be written"):
        save_checkpoint(tmp_path / "file" / "w.safetensors", {"a": torch.ones(1)}, {})


def test_matching_weights_are_put_into_the_model() -> None:
    model = torch.nn.Linear(3, 2)
    assert load_weights(model, {"weight": torch.ones(2, 3), "bias": torch.ones(2)}, where="w") == []
    assert torch.equal(model(torch.ones(3)), torch.full((2,), 4.0))


def test_unmatched_weights_are_refused_and_the_model_keeps_its_own() -> None:
    model = torch.nn.Linear(3, 2)
    before = model.weight.clone()
    wrong = {"weight": torch.ones(2, 4), "more": torch.ones(1)}
    with pytest.raises(AbawError, match=r"missing 1: bias; unexpected 1: more; wrong shape 1: weight \[2, 4\]"):
        load_weights(model, wrong, where="w")
    assert torch.equal(model.weight, before)


def test_only_declared_parameters_may_stay_fresh() -> None:
    model = torch.nn.Linear(3, 2)
    assert load_weights(model, {"weight": torch.ones(2, 3)}, where="w", fresh=("bias",)) == ["bias"]
