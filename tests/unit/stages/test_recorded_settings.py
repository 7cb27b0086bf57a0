"""Every setting of a training is compared with the recorded one, or stands here with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from abaw.config import Config, FinetuneConfig, FuseConfig, PretrainConfig
from abaw.errors import AbawError
from abaw.stages import finetune, fuse, pretrain
from abaw.training.run import RunFolder
from tests.unit.faces_store import make_faces, picture
from tests.unit.stages.tiny_set import ROWS, TRACKS, config, make_features, make_set

STAGES = {"pretrain": pretrain.run, "finetune": finetune.run, "fuse": fuse.run}
TABLES = {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "fuse": FuseConfig}
# of every table
LOOP = {"accumulate": "2", "ema_decay": "0.5", "min_lr": "1e-6", "checkpointing": "true", "compile": "true"}
# field -> another value than that of the run, as TOML; every one must be refused
CHANGED = {
    "pretrain": {
        **LOOP,
        "init_trained_on": '["none"]',
        "preset": '"vit_small_112"',
        "sources": '[{store="features/faces"}, {store="other", weight=2.0}]',
        "init_from": '"runs/pretrain-first"',
        "normalization": '"imagenet"',
        "mask_ratio": "0.5",
        "norm_pix_loss": "false",
        "steps": "2",
        "warmup_steps": "3",
        "batch_size": "3",
        "base_lr": "0.5",
        "weight_decay": "0.5",
        "clip_norm": "0.5",
        "min_crop_scale": "0.5",
        "tracks": '"all"',
        "checkpoint_every": "1",
        "precision": '"bf16"',
    },
    "finetune": {
        **LOOP,
        "init_trained_on": '["none"]',
        "model": '"emae"',
        "mixup": "0.5",
        "cutmix": "0.5",
        "au_reduce": '"sum"',
        "stride": "2",
        "select": '"last"',
        "preset": '"vit_small_112"',
        "faces": '"other"',
        "init_from": '"none"',
        "steps": "2",
        "warmup_steps": "3",
        "batch_size": "3",
        "lr": "0.5",
        "layer_decay": "0.5",
        "weight_decay": "0.5",
        "drop_path": "0.5",
        "clip_norm": "0.5",
        "pooling": '"cls"',
        "augment": '"none"',
        "weight_kind": '"weight"',
        "ccc_reduce": '"sum"',
        "ccc_clamp": "false",
        "mse_weight": "0.25",
        "label_smoothing": "0.5",
        "class_weights": '"none"',
        "frames_per_track": "2",
        "validate_every": "1",
        "precision": '"bf16"',
    },
    "fuse": {
        **LOOP,
        "model": '"linear"',
        "visual": '["features/visual-b", "features/visual-a"]',
        "audio": '["features/audio-c"]',
        "window": "5",
        "stride": "1",
        "score_stride": "1",
        "stitch": '"last"',
        "steps": "2",
        "warmup_steps": "3",
        "cycle_steps": "7",
        "batch_size": "3",
        "lr": "0.25",
        "weight_decay": "0.5",
        "clip_norm": "0.5",
        "dropout": "0.5",
        "positions": '"sincos"',
        "padding_mask": "false",
        "attention": '"cross"',
        "modality_dropout": "0.5",
        "value_heads": '"joint"',
        "weight_kind": '"pos_weight"',
        "au_reduce": '"sum"',
        "ccc_over": '"window"',
        "ccc_reduce": '"mean"',
        "ccc_clamp": "false",
        "mse_weight": "0.25",
        "label_smoothing": "0.5",
        "class_weights": '"none"',
        "validate_every": "1",
        "select": '"last"',
        "precision": '"bf16"',
        "gap": '"mask"',
    },
}
NOT_COMPARED = {
    "name": "names the run: another name is another run",
    "task": "is in the run's name: another task is another run",
    "panel_every": "says when pictures are drawn, which changes no weight",
    "mean": "belongs to normalization = given, and is refused with any other",
    "std": "belongs to normalization = given, and is refused with any other",
    "split": "names a file, whose content a fold's run compares",
    "emma": "only emma reads it, and compares it: test_finetune.py",
    "cotex": "only cotex reads it, and compares it: test_finetune.py",
    "emae": "only emae reads it, and compares it: test_finetune.py",
    "extra": "its frames are compared, wherever they are: test_finetune.py",
    "in_memory": "says where features wait, which changes no number: test_fuse.py",
    "dual": "only dual_branch reads it, and compares it: test_fuse.py",
    "ensemble": "belongs to --ensemble, which trains nothing",
    "sampling": "needs classes, which valence and arousal have not: test_finetune.py",
}
STEPS = [f"{stage}.{key}" for stage in STAGES for key in ("steps=1", "name=run", "warmup_steps=1")]
CASES = [(stage, field) for stage, fields in CHANGED.items() for field in fields]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each stage; `other` holds other faces, `audio-c` features of sound."""
    root = make_set(tmp_path_factory.mktemp("set"))
    make_faces(root / "other", {name: [picture(row) for row in range(ROWS)] for name in TRACKS})
    make_features(root / "features/audio-c", seed=3, kind="audio")
    pretrain.run(config(root, *STEPS, "pretrain.name=first"))
    for run in STAGES.values():
        run(settings(root))
    return root


def settings(root: Path, *overrides: str) -> Config:
    return config(root, *STEPS, "finetune.init_from=runs/pretrain-first", *overrides)


@pytest.mark.parametrize("stage", STAGES)
def test_every_field_is_either_compared_or_has_a_reason(stage: str) -> None:
    fields = set(TABLES[stage].model_fields)
    assert fields == set(CHANGED[stage]) | (fields & set(NOT_COMPARED))


@pytest.mark.parametrize(("stage", "field"), CASES)
def test_another_value_is_refused(root: Path, stage: str, field: str) -> None:
    with pytest.raises(AbawError, match="made with other settings"):
        STAGES[stage](settings(root, f"{stage}.{field}={CHANGED[stage][field]}"))


def test_another_weight_of_a_source_is_refused(root: Path) -> None:
    sources = 'pretrain.sources=[{{store="features/faces"}}, {{store="other", weight={}}}]'
    pretrain.run(settings(root, "pretrain.name=both", sources.format("1.0")))
    with pytest.raises(AbawError, match=r"source_1.weight: 1.0 recorded, 2.0 now"):
        pretrain.run(settings(root, "pretrain.name=both", sources.format("2.0")))


@pytest.mark.parametrize("stage", STAGES)
def test_automatic_precision_goes_on_with_the_recorded_one(root: Path, stage: str) -> None:
    names = {"pretrain": "pretrain-bf", "finetune": "finetune-va-bf", "fuse": "fuse-va-bf"}
    STAGES[stage](settings(root, f"{stage}.name=bf", f"{stage}.precision=bf16"))
    assert STAGES[stage](settings(root, f"{stage}.name=bf", f"{stage}.precision=auto")).data["skipped"]
    assert RunFolder(root / "runs" / names[stage]).record()["inputs"]["precision"] == "bf16"


def test_streams_of_one_folder_name_are_told_apart(root: Path) -> None:
    make_features(root / "elsewhere/visual-a", seed=5)
    twice = 'fuse.visual=["features/visual-a", "elsewhere/visual-a"]'
    swapped = 'fuse.visual=["elsewhere/visual-a", "features/visual-a"]'
    fuse.run(settings(root, "fuse.name=twice", twice))
    assert len(RunFolder(root / "runs/fuse-va-twice").record()["inputs"]["streams"]) == 2
    with pytest.raises(AbawError, match="inputs.streams"):
        fuse.run(settings(root, "fuse.name=twice", swapped))
