"""The organisers' folders and files: label files, test lists, sample submissions, MTL rows.

Owns names and formats on disk; sentinels (-1, -5) and 1-based frame names are written here. Knows nothing of pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from abaw.stages.synth.activations import AUS, EXPRESSIONS, Truth
from abaw.stages.synth.plan import Person, Video

ROOT = "aff-wild2"
HEADERS = {
    "va": "valence,arousal",
    "expr": ",".join(EXPRESSIONS),
    "au": ",".join(f"AU{unit}" for unit in AUS),
}
SAMPLE_HEADERS = {task: f"image_location,{header}" for task, header in HEADERS.items()}
MTL_HEADER = "image,valence,arousal,expression,aus"
CHALLENGES = {
    "va": "VA_Estimation_Challenge",
    "expr": "EXPR_Recognition_Challenge",
    "au": "AU_Detection_Challenge",
}
SPLIT_FOLDERS = {"train": "Train_Set", "val": "Validation_Set"}
MTL_FILES = {"train": "training_set_annotations.txt", "val": "validation_set_annotations.txt"}
LISTS = {
    "va": "Valence_Arousal_Estimation_Challenge_test_set_release.txt",
    "expr": "Expression_Recognition_Challenge_test_set_release.txt",
    "au": "Action_Unit_Detection_Challenge_test_set_release.txt",
}
SAMPLES = {task: f"CVPR_10th_ABAW_{task.upper()}_test_set_example.txt" for task in LISTS}
LIST_FOLDER = f"{ROOT}/test_set/names_of_videos_in_each_test_set"
SAMPLE_FOLDER = f"{ROOT}/test_set/test_set_examples"
_DUMMIES = {"va": "0,0", "expr": "0", "au": ",".join("0" * len(AUS))}


def frame_name(row: int) -> str:
    """File name of the crop of a 0-based row."""
    return f"{row + 1:05d}.jpg"


def label_rows(rng: np.random.Generator, person: Person, truth: Truth, visible: np.ndarray) -> dict[str, list[str]]:
    """Rows of the three label files of a track, with stretches marked invalid and a row more or less if planned."""
    num_rows = len(truth.expr)
    expr, au, va = truth.expr.copy(), truth.au.copy(), truth.va.round(3).astype(object)
    if person.identity % 2:  # the real set labels some frames without a face and marks others
        expr[~visible], au[~visible], va[~visible] = -1, -1, -5
    if person.has_invalid_rows:
        for values, mark in ((expr, -1), (au, -1), (va, -5)):
            length = max(1, num_rows // 20)
            start = int(rng.integers(0, num_rows - length + 1))
            values[start : start + length] = mark
        au[int(rng.integers(num_rows)), int(rng.integers(len(AUS)))] = -1
    rows = {
        "va": [f"{v},{a}" for v, a in va],
        "expr": [str(c) for c in expr],
        "au": [",".join(map(str, bits)) for bits in au],
    }
    if person.extra_rows > 0:
        return {task: [*lines, lines[-1]] for task, lines in rows.items()}
    return {task: lines[: num_rows + person.extra_rows] for task, lines in rows.items()}


def write_labels(out: Path, person: Person, rows: dict[str, list[str]]) -> None:
    """The label files of a track, for the tasks whose training or validation set it is in."""
    for task, split in person.splits.items():
        if split in SPLIT_FOLDERS:
            path = out / ROOT / "annotations" / CHALLENGES[task] / SPLIT_FOLDERS[split] / f"{person.track_id}.txt"
            _write(path, [HEADERS[task], *rows[task]])


def mtl_rows(rng: np.random.Generator, person: Person, truth: Truth, cropped: np.ndarray) -> list[str]:
    """Sparse s-Aff-Wild2 rows of a track: 16 fields, some labels missing, only rows that have a crop."""
    lines = []
    row = int(rng.integers(0, 5))
    while row < len(truth.expr):
        if cropped[row]:
            missing = rng.random(3) < 0.15
            missing[int(rng.integers(3))] = False
            va = "-5,-5" if missing[0] else ",".join(f"{v:.3f}" for v in truth.va[row])
            expr = "-1" if missing[1] else str(truth.expr[row])
            au = ",".join(["-1"] * len(AUS)) if missing[2] else ",".join(map(str, truth.au[row]))
            lines.append(f"{person.track_id}/{frame_name(row)},{va},{expr},{au}")
        row += int(rng.integers(4, 9))
    return lines


def write_mtl(out: Path, rows: dict[str, list[str]]) -> None:
    """The two label files of the multi-task challenge and its sample submission; ``rows`` maps split to lines."""
    for split, name in MTL_FILES.items():
        _write(out / ROOT / "annotations" / "MTL_Challenge" / name, [MTL_HEADER, *rows[split]])
    dummy = ",".join("0" * (3 + len(AUS)))
    _write(out / SAMPLE_FOLDER / "MTL.txt", [MTL_HEADER, *(f"{row.split(',')[0]},{dummy}" for row in rows["test"])])


def write_test_files(out: Path, videos: list[Video]) -> None:
    """Per task: the list of test tracks, and the sample submission with a dummy row per frame."""
    for task, name in LISTS.items():
        tracks = [
            (person.track_id, video.num_frames)
            for video in videos
            for person in video.people
            if person.splits.get(task) == "test"
        ]
        _write(out / LIST_FOLDER / name, [track_id for track_id, _ in tracks])
        rows = [f"{track_id}/{frame_name(row)},{_DUMMIES[task]}" for track_id, count in tracks for row in range(count)]
        _write(out / SAMPLE_FOLDER / SAMPLES[task], [SAMPLE_HEADERS[task], *rows])


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
