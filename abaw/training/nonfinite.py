"""What a training leaves behind when its loss or gradient is not finite: a report and the batch for a replay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from abaw.errors import AbawError
from abaw.publish import publish
from abaw.training.resume import write_state
from abaw.training.run import write_json

SHOWN_SAMPLES = 8


class NotFinite(Exception):
    """Step `step` cannot be taken; `losses` by name, `norm` of the whole gradient."""

    def __init__(self, step: int, losses: Mapping[str, float], norm: float) -> None:
        super().__init__(step)
        self.step, self.losses, self.norm = step, dict(losses), norm


def report_paths(run: Path) -> tuple[Path, Path]:
    """Files of the report and of the batch."""
    return run / "nonfinite.json", run / "nonfinite.pt"


def discard_report(run: Path) -> None:
    """Take away the report of an earlier attempt."""
    for path in report_paths(run):
        path.unlink(missing_ok=True)


def report(
    run: Path, found: NotFinite, model: nn.Module, pieces: Sequence[Mapping[str, Tensor]], samples: Sequence[str]
) -> AbawError:
    """Write the report of a step and its batch (all `pieces`, in order); returns the error to raise.

    `model` still holds the gradients, not yet clipped.
    """
    text, batch = report_paths(run)
    norms = {
        name: float(parameter.grad.norm()) for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    order = sorted(norms, key=lambda name: -norms[name] if math.isfinite(norms[name]) else -math.inf)
    content = {
        "step": found.step,
        "samples": list(samples),
        "losses": {name: _number(value) for name, value in found.losses.items()},
        "gradient_norm": _number(found.norm),
        "gradient_norms": {name: _number(norms[name]) for name in order},
    }
    publish(batch, partial(write_state, {"step": found.step, "pieces": [dict(piece) for piece in pieces]}))
    write_json(text, content)
    rest = f", ... ({len(samples)} in all)" if len(samples) > SHOWN_SAMPLES else ""
    values = ", ".join(f"{name} {value:.4g}" for name, value in found.losses.items())
    return AbawError(
        f"training stopped at step {found.step}: {values}, gradient norm {found.norm:.4g}",
        where=f"{run}, samples {', '.join(samples[:SHOWN_SAMPLES])}{rest}",
        fix=f"look at {text.name} (samples, losses, gradient norm of each parameter) and {batch.name} (the batch) "
        'there; lower the learning rate, set clip_norm = 1.0, or use precision = "fp32"; then run the same command: '
        "it goes on before this step, and records the change",
    )


def _number(value: float) -> Any:
    """A number as JSON knows it; the others as text."""
    return value if math.isfinite(value) else str(value)
