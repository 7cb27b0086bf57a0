"""Features made elsewhere become a store beside ours."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from abaw.cli import app
from abaw.config_file import load_config
from abaw.data.windows import FeatureStreams
from abaw.errors import AbawError, ExitCode
from abaw.provenance import make_recipe
from abaw.stages import import_features
from abaw.store import ArraySpec, FeatureStore, Reason, StoreHeader

ROWS = {"a": 4, "b": 3, "v_left": 3, "v_right": 3}
LEFT, RIGHT = [0, 0, 20, 20], [100, 0, 120, 20]
ARRAYS = {"time": ArraySpec("float64"), "reason": ArraySpec("uint8"), "box": ArraySpec("float32", (4,))}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with faces of four tracks; two of them are people of one recording, left and right."""
    (tmp_path / "data.toml").write_text('[data]\nvideos = "videos"\n[run]\nworkers = 1\n')
    header = StoreHeader("faces", "faces", ARRAYS, {"source": "videos"}, make_recipe({"size": 112}))
    faces = FeatureStore.create(tmp_path / "features" / "faces", header)
    for name, count in ROWS.items():
        arrays = {
            "valid": np.ones(count, bool),
            "time": np.arange(count) / 25,
            "reason": np.zeros(count, np.uint8),
            "box": np.tile(np.array(RIGHT if name == "v_right" else LEFT, np.float32), (count, 1)),
        }
        faces.write(name, arrays, fps=25)
    (tmp_path / "theirs").mkdir()
    return tmp_path


def run(root: Path, source: str = "theirs", *overrides: str, name: str = "x", **options):
    cfg = load_config(root / "data.toml", overrides=overrides)
    return import_features.run(cfg, root / source, name=name, **options)


def store(root: Path, name: str = "x", kind: str = "visual") -> FeatureStore:
    return FeatureStore.open(root / "features" / f"{kind}-{name}", kind=kind)


def save(root: Path, **arrays: object) -> None:
    for name, values in arrays.items():
        np.save(root / "theirs" / f"{name}.npy", np.asarray(values, np.float32))


def ones(count: int, dim: int = 2) -> np.ndarray:
    return np.ones((count, dim), np.float32)


def test_fuse_reads_an_imported_store_like_any_other(root: Path) -> None:
    save(root, a=np.arange(8).reshape(4, 2), b=ones(3))
    summary = run(root)
    assert not summary.failed
    assert summary.data["missing"] == ["v_left", "v_right"]
    streams = FeatureStreams([store(root).path], [], gap="mask")
    assert streams.check(["a", "b"]) == []
    assert streams.dims == [2]
    assert store(root).read("a", "features").tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert store(root).read("a", "features").dtype == np.float16


def test_the_header_says_where_the_features_are_from(root: Path) -> None:
    (root / "theirs" / "a.csv").write_text("frame,f0,f1\n0,1,2\n1,1,2\n2,1,2\n3,1,2\n")
    run(root)
    header = store(root).header
    assert {key: header.settings[key] for key in ("encoder", "format", "columns", "first_frame")} == {
        "encoder": "imported",
        "format": "csv",
        "columns": ["f0", "f1"],
        "first_frame": 0,
    }
    assert header.recipe["fingerprint"] == "unknown"
    assert header.trained_on[0]["labels"] == "undeclared"
    assert header.trained_on[0]["weights_sha256"] == header.settings["sources_sha256"]


def test_what_the_model_has_seen_can_be_declared(root: Path) -> None:
    save(root, a=ones(4))
    run(root, trained_on=["AffectNet"])
    assert (store(root).header.trained_on[0]["labels"], store(root).header.trained_on[0]["dataset"]) == (
        "declared",
        "AffectNet",
    )


def test_other_sources_are_another_store(root: Path) -> None:
    save(root, a=ones(4))
    run(root)
    save(root, a=2 * ones(4))
    with pytest.raises(AbawError, match="made with other settings: settings.sources_sha256"):
        run(root)
    run(root, overwrite=True)
    assert store(root).read("a", "features").max() == 2


def test_a_rerun_does_only_what_is_missing(root: Path) -> None:
    save(root, a=ones(4), b=ones(3))
    run(root)
    before = store(root).track_path("a").read_bytes()
    store(root).track_path("a").unlink()
    assert run(root).data["tracks"] == 1
    assert store(root).track_path("a").read_bytes() == before


def test_several_workers_give_the_same_bytes(root: Path) -> None:
    save(root, a=ones(4), b=ones(3))
    run(root)
    one = store(root).track_path("a").read_bytes()
    run(root, "theirs", "run.workers=2", overwrite=True)
    assert store(root).track_path("a").read_bytes() == one


def test_a_dry_run_writes_nothing(root: Path) -> None:
    save(root, a=ones(4), b=ones(3))
    assert run(root, dry_run=True, limit=1).data["to_do"] == 1
    assert not (root / "features" / "visual-x").exists()


def test_a_shard_is_a_part_of_the_same_store(root: Path) -> None:
    save(root, a=ones(4), b=ones(3))
    run(root, shard="2/2")
    assert store(root).track_ids() == ["b"]
    run(root)
    assert store(root).track_ids() == ["a", "b"]


# -- rows --------------------------------------------------------------------------------------------------------------
def test_rows_that_do_not_match_fail_their_track_and_the_others_go_on(root: Path) -> None:
    save(root, a=ones(9), b=ones(4))
    summary = run(root)
    assert [(lost.track_id, lost.message.partition(" (fix")[0]) for lost in summary.failed] == [
        ("a", "a.npy has 9 rows, the track 4")
    ]
    assert summary.exit_code is ExitCode.PARTIAL
    assert store(root).track_ids() == ["b"]
    assert summary.data["differences"] == {"b": 1}  # settled
    assert store(root).facts("b") == {"row_difference": 1, "source": "b.npy"}


def test_a_damaged_file_fails_its_track_only(root: Path) -> None:
    save(root, b=ones(3))
    np.save(root / "theirs" / "a.npy", np.array([None]), allow_pickle=True)
    summary = run(root)
    assert ["holds Python objects" in lost.message for lost in summary.failed] == [True]
    assert store(root).track_ids() == ["b"]


def test_a_frame_that_has_no_file_is_a_row_without_value(root: Path) -> None:
    (root / "theirs" / "a").mkdir()
    for number in (1, 4):
        np.save(root / "theirs" / "a" / f"{number:05d}.npy", np.full(2, number))
    summary = run(root)
    assert dict(summary.lines)["frames"] == "numbered from 1: 1 is row 0"
    assert store(root).read("a", "reason").tolist() == [0, Reason.NO_VALUE, Reason.NO_VALUE, 0]
    assert store(root).read("a", "features")[:, 0].tolist() == [1, 0, 0, 4]
    assert summary.data["lacking"] == 2  # a face is there, features are not


def test_a_group_per_image_of_an_hdf5_file_is_read(root: Path) -> None:
    with h5py.File(root / "theirs" / "all.h5", "w") as file:
        for number in (1, 2, 3, 4):
            file[f"{number:05d}/a"] = np.full(5, number)
    run(root, "theirs/all.h5")
    assert store(root).read("a", "features")[:, 0].tolist() == [1, 2, 3, 4]


def test_the_command_ends_with_the_code_of_a_part(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(root, a=ones(9), b=ones(3))
    monkeypatch.chdir(root)
    found = CliRunner().invoke(app, ["import", "theirs", "--name", "x", "--trained-on", "none", "-q"])
    assert found.exit_code == ExitCode.PARTIAL
    assert "1 imported, 0 already there, 1 failed" in found.stdout
    assert store(root).header.trained_on[0]["labels"] == "none"


# -- names -------------------------------------------------------------------------------------------------------------
def test_unknown_and_missing_names_are_told(root: Path) -> None:
    save(root, a=ones(4), v_leftt=ones(3))
    lines = dict(run(root).lines)
    assert lines["unknown"] == "1 names that are no track: v_leftt (closest: v_left)"
    assert lines["missing"] == "3 tracks have no features here: b, v_left, v_right"


def test_names_of_which_none_fits_are_shown_beside_the_tracks(root: Path) -> None:
    save(root, v_lef=ones(3))
    with pytest.raises(AbawError, match="none of the 1 names .* the closest to v_lef is v_left") as caught:
        run(root)
    assert "a, b, v_left, v_right" in caught.value.where


def test_two_files_of_one_track_are_refused(root: Path) -> None:
    save(root, a=ones(4))
    (root / "theirs" / "old").mkdir()
    np.save(root / "theirs" / "old" / "a.npy", ones(4))
    with pytest.raises(AbawError, match="two features would both be track a"):
        run(root)


def test_sound_of_a_recording_is_that_of_both_people(root: Path) -> None:
    save(root, v=ones(3))
    run(root, kind="audio")
    assert store(root, kind="audio").track_ids() == ["v_left", "v_right"]
    assert store(root, kind="audio").header.recipe["fingerprint"] != "unknown"
    with pytest.raises(AbawError, match="none of the 1 names"):
        run(root)  # a picture shows one of them


def test_a_table_of_both_people_gives_each_its_own_face(root: Path) -> None:
    names = "frame,FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight,AU01"
    faces = [f"{frame},{x},5,10,10,{value}" for frame in range(3) for x, value in ((105, 0.75), (5, 0.25))]
    (root / "theirs" / "v.csv").write_text("\n".join([names, *faces[:-1]]) + "\n")
    assert not run(root, columns=["AU*"]).failed
    assert store(root).read("v_left", "features")[:, 0].tolist() == [0.25, 0.25, 0]
    assert store(root).read("v_left", "reason").tolist() == [0, 0, Reason.OTHER_PERSON]
    assert store(root).read("v_right", "features")[:, 0].tolist() == [0.75, 0.75, 0.75]


# -- what is refused ---------------------------------------------------------------------------------------------------
def test_an_extracted_store_is_never_overwritten(root: Path) -> None:
    save(root, a=ones(4))
    header = StoreHeader("visual", "x", {"features": ArraySpec("float16", (2,))}, {"encoder": "mae"})
    FeatureStore.create(root / "features" / "visual-x", header)
    with pytest.raises(AbawError, match="visual-x is there already, and was not imported"):
        run(root, overwrite=True)


def test_a_store_of_ours_needs_no_import(root: Path) -> None:
    with pytest.raises(AbawError, match="is a store of this program"):
        run(root, "features/faces")
    with pytest.raises(AbawError, match="is a track of one of this program's stores"):
        run(root, "features")


def test_features_of_faces_are_not_of_sound(root: Path) -> None:
    (root / "theirs" / "a.csv").write_text("frame,timestamp,confidence,success,AU01_r\n1,0,1,1,1\n")
    with pytest.raises(AbawError, match="openface writes features of faces, not of sound"):
        run(root, kind="audio")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "video"}, 'unknown kind "video"'),
        ({"name": "a/b"}, "cannot be a track name"),
        ({"source": "nowhere"}, "does not exist"),
        ({"overwrite": True, "limit": 1}, "--overwrite with --limit"),
    ],
)
def test_options_that_cannot_be_are_refused(root: Path, options: dict[str, object], message: str) -> None:
    save(root, a=ones(4))
    with pytest.raises(AbawError, match=message):
        run(root, **options)
