"""What every visual encoder of the registry keeps to, each on a weights file of its published layout."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from abaw.config.encoders import VISUAL_NAMES
from abaw.data.views import auxiliary_view
from abaw.encoders.visual import (
    VISUAL_ENCODERS,
    Faces,
    VisualEncoder,
    VisualOptions,
    build_visual_encoder,
    entry_of,
)
from abaw.errors import AbawError, ExitCode
from abaw.provenance import file_sha256, fingerprint
from tests.unit.encoders.encoder_files import (
    faces,
    write_classifier,
    write_dan,
    write_iresnet,
    write_mae,
    write_means,
    write_run,
    write_timm,
)

NAMES = sorted(VISUAL_ENCODERS)
SCORED = [name for name in NAMES if "scores" in VISUAL_ENCODERS[name].takes]
FLIPPED = [name for name in NAMES if "flip" in VISUAL_ENCODERS[name].takes]
TIMM = "timm:test_resnet"
OPTIONS = {
    "scores": True,
    "labels": "affectnet8",
    "flip": True,
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "color": "bgr",
    "pooling": "cls",
}
UNTAKEN = [(name, key) for name in NAMES for key in OPTIONS if key not in VISUAL_ENCODERS[name].takes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files of every encoder under the names that they are published with."""
    folder = tmp_path_factory.mktemp("weights")
    write_mae(folder / "mae.safetensors")
    write_run(folder / "finetuned.safetensors", "static", "mtl")
    write_dan(folder / "affecnet8_epoch5_acc0.6209.pth")
    classifier = {"labels": list(AFFECTNET), "spec": "affecnet8_epoch5_acc0.6209.pth", "label_space": "affectnet8"}
    classifier["sha256"] = file_sha256(folder / "affecnet8_epoch5_acc0.6209.pth")
    write_run(folder / "emma.safetensors", "emma", "mtl", classifier=classifier)
    write_run(folder / "emae.safetensors", "emae", "expr")
    write_iresnet(folder / "backbone.pth")
    write_classifier(folder / "enet_b0_8_va_mtl.onnx", 10)
    write_timm(folder / "timm.safetensors", TIMM.removeprefix("timm:"))
    write_means(folder / "means.onnx")
    yield folder
    build.cache_clear()


AFFECTNET = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Contempt")
FILES = {
    "mae": "mae.safetensors",
    "finetuned": "finetuned.safetensors",
    "emma": "emma.safetensors",
    "emae": "emae.safetensors",
    "dan": "affecnet8_epoch5_acc0.6209.pth",
    "iresnet": "backbone.pth",
    "hsemotion": "enet_b0_8_va_mtl.onnx",
    "timm": "timm.safetensors",
    "onnx": "",
    "landmarks": "",
}
WIDTHS = {
    "mae": 32,
    "finetuned": 32,
    "emma": 32,
    "emae": 32,
    "dan": 512,
    "iresnet": 512,
    "hsemotion": 3,
    "timm": 96,
    "onnx": 3,
    "landmarks": 14,
}


def options(name: str, folder: Path, **told: object) -> VisualOptions:
    labels = "affectnet8" if name == "timm" and told.get("scores") else ""
    return VisualOptions(weights=FILES[name], root=folder, make_view=auxiliary_view, labels=labels, **told)  # type: ignore[arg-type]


def written(name: str) -> str:
    """The name as a table of the configuration has it."""
    return {"timm": TIMM, "onnx": "onnx:means.onnx"}.get(name, name)


@cache
def build(name: str, folder: Path, **told: object) -> VisualEncoder:
    return build_visual_encoder(written(name), options(name, folder, **told))


def test_the_registry_has_the_names_that_the_configuration_knows() -> None:
    assert tuple(VISUAL_ENCODERS) == VISUAL_NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_says_widths_images_origin_and_licence(name: str) -> None:
    entry = VISUAL_ENCODERS[name]
    assert entry.width
    assert entry.images
    assert name == "landmarks" or (entry.published.origin and entry.published.licence)
    assert all(len(sha256) in (0, 64) for sha256 in entry.published.files.values())


@pytest.mark.parametrize("name", NAMES)
def test_features_are_float32_rows_for_any_number_of_faces(folder: Path, name: str) -> None:
    encoder = build(name, folder)
    assert encoder.dim == WIDTHS[name]
    for count in (0, 1, 2):
        features = encoder.encode(faces(count, encoder.image_size))
        assert features.shape == (count, encoder.dim)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_row_repeats_and_does_not_depend_on_its_neighbours(folder: Path, name: str) -> None:
    encoder, again = build(name, folder), build_visual_encoder(written(name), options(name, folder))
    first = faces(2, encoder.image_size)
    other = Faces(*(np.concatenate([part[:1], 0 * part[1:]]) for part in first))
    found = encoder.encode(first)
    assert np.array_equal(found, encoder.encode(first))
    assert np.array_equal(found, again.encode(first))
    assert np.array_equal(found[0], encoder.encode(other)[0])
    assert not np.array_equal(found[0], found[1])


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_plain_values_and_the_same_each_time(folder: Path, name: str) -> None:
    encoder = build(name, folder)
    assert json.loads(json.dumps(encoder.settings)) == encoder.settings
    assert encoder.settings["encoder"] == (TIMM if name == "timm" else name)
    assert fingerprint(encoder.settings) == fingerprint(build(name, folder).settings)
    assert json.loads(json.dumps(encoder.trained_on)) == encoder.trained_on
    assert encoder.recipe == {"fingerprint": "unknown", "settings": {}}
    assert all(isinstance(note, str) for note in encoder.notes)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "landmarks"])
def test_bf16_is_close_to_its_exact_twin_or_refused(folder: Path, name: str) -> None:
    if name in ("hsemotion", "onnx"):
        with pytest.raises(AbawError, match='precision = "bf16" cannot be used') as caught:
            build(name, folder, precision="bf16")
        assert caught.value.code is ExitCode.CONFIG
        assert build(name, folder, precision="bf16", auto_precision=True).precision == "fp32"
        return
    encoder = build(name, folder, precision="bf16")
    twin = encoder.exact()
    assert (encoder.precision, encoder.settings["precision"]) == ("bf16", "bf16")
    assert (twin.precision, twin.settings["precision"]) == ("fp32", "fp32")
    assert twin.exact() is twin
    some = faces(2, encoder.image_size)
    fast, exact = encoder.encode(some), twin.encode(some)
    assert fast.dtype == np.float32
    assert not np.array_equal(fast, exact)
    assert np.array_equal(exact, build(name, folder).encode(some))
    assert cosines(fast, exact).min() > 0.999


def test_emma_keeps_its_classifier_exact_in_bf16(folder: Path) -> None:
    encoder = build("emma", folder, precision="bf16", scores=True)
    some = faces(2, encoder.image_size)
    assert cosines(encoder.encode(some), encoder.exact().encode(some)).min() > 0.999


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


@pytest.mark.parametrize("name", FLIPPED)
def test_flipping_gives_the_mean_with_the_mirrored_face(folder: Path, name: str) -> None:
    plain, flipped = build(name, folder), build(name, folder, flip=True)
    changed = {key for key in flipped.settings if flipped.settings[key] != plain.settings.get(key)}
    assert changed == {"flip"}
    some = faces(2, plain.image_size)
    points = some.landmarks[:, [1, 0, 2, 4, 3]] * np.array([-1, 1], np.float32) + np.array([1, 0], np.float32)
    mirrored = Faces(np.ascontiguousarray(some.images[:, :, ::-1]), points, some.box)
    found = flipped.encode(some)
    if name != "emae":  # the mirror image of its view is not the view of the mirror image to the last pixel
        assert np.allclose(found, (plain.encode(some) + plain.encode(mirrored)) / 2, atol=1e-4)
    assert not np.allclose(found, plain.encode(some), atol=1e-4) or name in ("hsemotion", "onnx")  # means of colours


@pytest.mark.parametrize("name", SCORED)
def test_scores_are_further_columns_under_their_names(folder: Path, name: str) -> None:
    plain, scored = build(name, folder), build(name, folder, scores=True)
    names = scored.settings["scores"]
    assert "scores" not in plain.settings
    assert scored.dim == plain.dim + len(names) == plain.dim + len(set(names))
    some = faces(2, plain.image_size)
    found = scored.encode(some)
    assert np.allclose(found[:, : plain.dim], plain.encode(some), atol=1e-4)
    classes = [plain.dim + place for place, label in enumerate(names) if label in (*AFFECTNET, "Other")]
    assert len(classes) == 8
    assert np.allclose(found[:, classes].sum(1), 1, atol=1e-4)
    assert scored.encode(faces(0, plain.image_size)).shape == (0, scored.dim)


@pytest.mark.parametrize(("name", "key"), UNTAKEN)
def test_an_option_that_would_change_nothing_is_refused(folder: Path, name: str, key: str) -> None:
    shown = json.dumps(OPTIONS[key])
    with pytest.raises(AbawError, match=re.escape(f"{key} = {shown} cannot be used with encoder")) as caught:
        build_visual_encoder(written(name), replace(options(name, folder), **{key: OPTIONS[key]}))
    assert caught.value.code is ExitCode.CONFIG


@pytest.mark.parametrize("name", [name for name in NAMES if "labels" in VISUAL_ENCODERS[name].takes])
def test_label_names_without_scores_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(AbawError, match='labels = "affectnet8" names the class scores') as caught:
        build_visual_encoder(written(name), replace(options(name, folder), labels="affectnet8"))
    assert caught.value.code is ExitCode.CONFIG


@pytest.mark.parametrize("name", [name for name in NAMES if name != "landmarks"])
def test_a_missing_file_is_named_and_exit_code_5(tmp_path: Path, name: str) -> None:
    told = VisualOptions(weights="" if name == "onnx" else "gone.pth", root=tmp_path)
    with pytest.raises(AbawError, match="onnx:means|gone") as caught:
        build_visual_encoder(written(name), told)
    assert caught.value.code is ExitCode.MISSING


@pytest.mark.parametrize("name", [n for n in NAMES if n != "landmarks"])
def test_weights_are_never_random_by_accident(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(AbawError, match="has no weights") as caught:
        build_visual_encoder(written(name), VisualOptions(weights_dir=tmp_path / "own", root=tmp_path))
    assert caught.value.code is ExitCode.MISSING
    published = VISUAL_ENCODERS[name].published.files
    assert all(file in caught.value.fix and sha256 in caught.value.fix for file, sha256 in published.items())
    assert not published or str(tmp_path / "own") in caught.value.fix


@pytest.mark.parametrize("name", ["dan", "iresnet", "timm", "mae"])
def test_random_weights_are_written_out_and_repeat(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        encoders = [build_visual_encoder(written(name), VisualOptions(weights="random")) for _ in range(2)]
    assert encoders[0].settings["weights"].startswith("random:")
    some = faces(1, encoders[0].image_size)
    assert np.array_equal(encoders[0].encode(some), encoders[1].encode(some))
    assert "random weights" in caplog.text


@pytest.mark.parametrize(
    ("name", "words"),
    [("timm", "lacks its model"), ("onnx:", "lacks its file"), ("dan:r50", "takes nothing"), ("tim", "unknown visual")],
)
def test_names_are_written_as_the_registry_says(name: str, words: str) -> None:
    with pytest.raises(AbawError, match=words) as caught:
        entry_of(name)
    assert caught.value.code is ExitCode.CONFIG
