"""Probe: does torch import, and does a small computation on a device come out right?

Its argument is the device as the configuration names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from abaw.errors import AbawError
from abaw.stages.doctor.child import probe, say

if TYPE_CHECKING:
    import torch

SIDE = 64


def main(asked: str) -> None:
    """Say step by step how far it gets; the CPU comes before any driver is touched."""
    import torch

    say("imported", version=torch.__version__, cuda_build=torch.version.cuda, hub=torch.hub.get_dir())
    say("cpu", **computed(torch.device("cpu")))
    _import_torchaudio()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    say("cuda", names=[torch.cuda.get_device_name(number) for number in range(count)])

    from abaw.training.device import resolve_device

    say("auto", device=str(resolve_device("auto")))
    try:
        device = resolve_device(asked)
    except AbawError as error:
        say("refused", what=error.what, where=error.where, fix=error.fix, code=int(error.code))
        return
    say("chosen", device=str(device))
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        say("memory", free=free, total=total)
    say("computed", **computed(device))


def _import_torchaudio() -> None:
    try:
        from abaw._compat import prepare_torchaudio

        prepare_torchaudio()
        import torchaudio
    except Exception as error:  # whatever its native library raises
        say("torchaudio", error=f"{type(error).__name__}: {error}")
    else:
        say("torchaudio", version=torchaudio.__version__)


def computed(device: torch.device) -> dict[str, Any]:
    """Products, a convolution and a gradient of small whole numbers, which every precision gives exactly.

    ``wrong``: those that came out otherwise; ``precision``: what "auto" takes on the device.
    """
    import torch

    from abaw.training.device import autocast, resolve_precision

    rows = (torch.arange(SIDE * SIDE) % 5).reshape(SIDE, SIDE)
    here = rows.float().to(device)
    precision = resolve_precision("auto", device)
    image = torch.ones(1, 3, 8, 8, device=device, requires_grad=True)
    sums = torch.nn.functional.conv2d(image, torch.ones(2, 3, 3, 3, device=device))  # 27 ones each
    sums.sum().backward()
    with autocast(device, precision):
        ones = torch.ones(SIDE, SIDE, device=device)
        counted = ones @ ones
    exact = {
        "product": torch.equal((here @ here).cpu().long(), rows @ rows),
        "convolution": bool((sums == 27).all()),
        "gradient": image.grad is not None and float(image.grad[0, 0, 4, 4]) == 2 * 9,
        f"product in {precision}": bool((counted == SIDE).all()),
    }
    return {"precision": precision, "wrong": [name for name, is_right in exact.items() if not is_right]}


if __name__ == "__main__":
    probe(main)
