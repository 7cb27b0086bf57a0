"""Tasks that can be trained on, and hashes of labels."""

import numpy as np
import pytest

from abaw.data.annotations import Labels
from abaw.data.labelled import labels_sha256, require_labels, trainable_task
from abaw.errors import AbawError, ExitCode
from abaw.tasks import TASKS


def labels(*values: float, known: bool = True) -> dict[str, Labels]:
    block = np.array(values, np.float32)[:, None]
    return {"expr": Labels(block, np.full(block.shape, known))}


def test_a_task_with_labels_may_be_trained() -> None:
    assert trainable_task("va", where="fuse.task") is TASKS["va"]


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.train_on])
def test_a_task_decided_from_another_is_refused_with_that_ones_name(name: str) -> None:
    with pytest.raises(AbawError, match=f'task "{name}" has no labels of its own') as caught:
        trainable_task(name, where="fuse.task")
    assert f"--task {TASKS[name].train_on}" in caught.value.fix
    assert caught.value.code is ExitCode.CONFIG


def test_the_hash_changes_with_track_value_mask_and_order() -> None:
    sets = [
        {"a": labels(1, 2), "b": labels(3)},
        {"b": labels(3), "a": labels(1, 2)},
        {"a": labels(1, 2), "c": labels(3)},
        {"a": labels(1, 2), "b": labels(4)},
        {"a": labels(1), "b": labels(2, 3)},
        {"a": labels(1, 2), "b": labels(3, known=False)},
    ]
    assert len({labels_sha256(entry) for entry in sets}) == len(sets)


def test_what_an_unlabelled_row_holds_does_not_count() -> None:
    assert labels_sha256({"a": labels(1, known=False)}) == labels_sha256({"a": labels(2, known=False)})


def test_a_split_without_any_label_is_named() -> None:
    require_labels({"a": labels(1), "b": labels(2, known=False)}, TASKS["expr"], split="val")
    with pytest.raises(AbawError, match="no row of the val split has a label of expr"):
        require_labels({"a": labels(1, known=False)}, TASKS["expr"], split="val")
