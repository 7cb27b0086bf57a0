"""What tests run in several processes: `python -m torch.distributed.run -m tests.unit.training.ranks WHAT FOLDER`."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from abaw import console
from abaw.errors import AbawError
from abaw.training.device import rank_and_world
from abaw.training.distributed import from_main, gather_scores, is_main, join, main_first, own_part
from tests.unit.training.tiny_run import CASES, Points, at_step, train

EQUAL = [
    "plain",
    "plain halves",
    "plain averaged",
    "agreement",
    "agreement halves",
    "partial",
    "objective",
    "objective halves",
    "dual",
    "dual halves",
]
ROWS = 61


def sha256(model: torch.nn.Module) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values())).hexdigest()


def note(folder: Path, content: dict) -> None:
    (folder / f"rank{rank_and_world()[0]}.json").write_text(json.dumps(content))


def everything(folder: Path) -> None:
    """Train every case, and go on with what `killed` left; then the ways in which processes agree."""
    found: dict = {name: sha256(train(folder / name, CASES[name])[0]) for name in [*EQUAL, "normed"]}
    own = own_part(ROWS)
    scores = gather_scores(own, {"head": np.stack([own, own**2], 1).astype(np.float32)}, ROWS)
    found["rows"], found["scores"] = len(own), scores["head"].tolist()
    found["first"] = from_main(rank_and_world()[0])
    try:
        with main_first():
            if is_main():
                raise AbawError("the disk is full", where="here", fix="empty it")
    except AbawError as error:
        found["error"] = [type(error).__name__, error.what]
    try:
        stop = at_step(6, signal.SIGTERM) if not is_main() else lambda _: None
        train(folder / "stopped", on_step=stop)
    except KeyboardInterrupt:
        found["stopped"] = torch.load(folder / "stopped" / "resume.pt", weights_only=True)["state"]["step"]
    try:
        train(folder / "poisoned", source=Points(poison=5))
    except AbawError as error:
        found["poisoned"] = [type(error).__name__, error.what]
    found["killed"] = sha256(train(folder / "killed")[0])
    note(folder, found)


def killed(folder: Path) -> None:
    """The last process is killed at step 8."""
    last = rank_and_world()[0] == rank_and_world()[1] - 1
    train(folder / "killed", on_step=at_step(8) if last else lambda _: None)


def unreadable(folder: Path) -> None:
    """Only the second process meets a batch that it cannot read."""
    source = Points()
    if not is_main():
        source.order.at = _fail  # type: ignore[method-assign]
    train(folder / "unreadable", source=source)


def _fail(_: int) -> np.ndarray:
    raise AbawError("face 3 cannot be read", where="t1", fix="align it again")


def main() -> None:
    console.setup()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    join(torch.device("cpu"))
    try:
        globals()[sys.argv[1]](Path(sys.argv[2]))
    except AbawError as error:
        console.show_error(error)
        sys.exit(int(error.code))


if __name__ == "__main__":
    main()
