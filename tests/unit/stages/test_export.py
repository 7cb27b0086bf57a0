"""A store's arrays as files of other programs, and back."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from abaw.config_file import load_config
from abaw.errors import AbawError, ExitCode
from abaw.stages import export_features, import_features
from abaw.store import ArraySpec, FeatureStore, Reason, StoreHeader
from tests.unit.faces_store import make_faces, picture

VALID = np.array([True, False, True, True])
REASON = np.array([0, Reason.NO_FACE, 0, 0], np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Faces of track `a`, random features and scores of it; row 1 shows no face."""
    (tmp_path / "data.toml").write_text('[data]\nvideos = "videos"\n[run]\nworkers = 1\n')
    make_faces(tmp_path / "features" / "faces", {"a": [picture(0), None, picture(1), picture(2)]})
    features(tmp_path)
    labels = {"va": ["valence", "arousal"]}
    header = StoreHeader(
        "predictions", "p", {"scores/va": ArraySpec("float32", (2,))}, {"weights": "w"}, label_order=labels
    )
    scores = np.array([[0.1, -1], [0, 0], [1 / 3, 0.5], [1, 1]], np.float32)
    store = FeatureStore.create(tmp_path / "predictions" / "p", header)
    store.write("a", {"valid": VALID, "scores/va": scores}, fps=25)
    return tmp_path


def features(root: Path, *, name: str = "mae", dim: int = 300, **settings: object) -> FeatureStore:
    """Random float16 of all magnitudes, the smallest and largest among them."""
    header = StoreHeader(
        "visual",
        name,
        {"features": ArraySpec("float16", (dim,)), "reason": ArraySpec("uint8")},
        {"encoder": name, **settings},
    )
    bits = np.random.default_rng(0).integers(0, 2**16, (4, dim), dtype=np.uint16)
    values = bits.view(np.float16)
    values = np.where(np.isfinite(values) & VALID[:, None], values, np.float16(0))
    values[0, :4] = [np.finfo(np.float16).max, np.finfo(np.float16).smallest_subnormal, -0.0, 0.1]
    store = FeatureStore.create(root / "features" / f"visual-{name}", header)
    store.write("a", {"valid": VALID, "reason": REASON, "features": values}, fps=25)
    return store


def run(root: Path, store: str = "features/visual-mae", **options):
    return export_features.run(root / store, out=root / "out", workers=1, **options)


def table(root: Path) -> list[dict[str, str]]:
    with (root / "out" / "a.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("format", ["csv", "npz"])
def test_features_come_back_byte_for_byte(root: Path, format: str) -> None:
    run(root, format=format)
    import_features.run(load_config(root / "data.toml"), root / "out", name="again", format=format)
    before, after = (FeatureStore.open(root / "features" / f"visual-{name}") for name in ("mae", "again"))
    for array in ("features", "reason", "valid"):
        assert after.read("a", array).tobytes() == before.read("a", array).tobytes()


def test_a_table_has_frame_time_and_why_a_row_is_empty(root: Path) -> None:
    features(root, name="small", dim=4)
    run(root, "features/visual-small")
    rows = table(root)
    assert list(rows[0]) == ["frame", "time", "valid", "reason", "f0", "f1", "f2", "f3"]
    assert [row["frame"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["time"] for row in rows] == ["0.0", "0.04", "0.08", "0.12"]
    assert list(rows[1].values())[2:] == ["0", "no_face", "", "", "", ""]
    assert (rows[0]["reason"], rows[0]["f0"], rows[0]["f3"]) == ("valid", "65504", "0.099976")


def test_score_columns_are_named_by_their_labels(root: Path) -> None:
    run(root, "predictions/p")
    rows = table(root)
    assert list(rows[0]) == ["frame", "time", "valid", "valence", "arousal"]
    assert np.float32(rows[2]["valence"]) == np.float32(1 / 3)
    assert rows[1]["valence"] == ""


def test_columns_with_names_keep_them(root: Path) -> None:
    features(root, name="named", dim=4, columns=["w", "x", "y", "z"])
    run(root, "features/visual-named")
    assert list(table(root)[0])[-4:] == ["w", "x", "y", "z"]
    features(root, name="scored", dim=4, scores=["Anger", "Fear"])
    run(root, "features/visual-scored", overwrite=True)
    assert list(table(root)[0])[-4:] == ["f0", "f1", "Anger", "Fear"]


def test_faces_are_exported_without_their_crops(root: Path) -> None:
    run(root, "features/faces")
    row = table(root)[0]
    assert list(row)[:8] == ["frame", "time", "valid", "reason", "box_x0", "box_y0", "box_x1", "box_y1"]
    assert (row["box_x1"], row["landmarks_0_0"], row["warp_1_1"], row["score"]) == ("96", "48", "0.5", "1")


def test_an_archive_holds_plain_arrays(root: Path) -> None:
    run(root, "predictions/p", format="npz")
    with np.load(root / "out" / "a.npz", allow_pickle=False) as found:
        assert found["scores.va"].dtype == np.float32
        assert found["scores.va.columns"].tolist() == ["valence", "arousal"]
        assert found["frame"].tolist() == [0, 1, 2, 3]
        assert found["valid"].tolist() == VALID.tolist()


def test_without_a_faces_store_there_is_no_time(root: Path) -> None:
    (root / "features" / "faces").rename(root / "elsewhere")
    assert dict(run(root).lines)["times"].startswith("none")
    assert list(table(root)[0])[:3] == ["frame", "valid", "reason"]
    run(root, faces=root / "elsewhere", overwrite=True)
    assert table(root)[1]["time"] == "0.04"


def test_a_faces_store_with_other_rows_gives_no_time(root: Path) -> None:
    make_faces(root / "other", {"a": [None]})
    lines = dict(run(root, faces=root / "other").lines)
    assert lines["no time"] == "1 tracks have other rows in that store: a"
    assert table(root)[0]["time"] == ""


def test_a_rerun_keeps_what_is_there(root: Path) -> None:
    run(root)
    assert run(root).data["tracks"] == 0
    (root / "out" / "a.csv").unlink()
    assert run(root, dry_run=True).data["to_do"] == 1
    assert not (root / "out" / "a.csv").exists()
    assert run(root).data["tracks"] == 1


def test_the_folder_says_what_its_files_are(root: Path) -> None:
    run(root)
    record = json.loads((root / "out" / "export.json").read_text())
    assert (record["kind"], record["fingerprint"]) == (
        "visual",
        FeatureStore.open(root / "features" / "visual-mae").fingerprint,
    )


def test_another_store_or_format_does_not_mix_with_an_export(root: Path) -> None:
    run(root)
    with pytest.raises(AbawError, match="holds an export with another store: visual-mae as csv"):
        run(root, "predictions/p")
    with pytest.raises(AbawError, match="holds an export with another format"):
        run(root, format="npz")
    (root / "out" / "notes.txt").write_text("mine")
    run(root, format="npz", overwrite=True)
    assert sorted(path.name for path in (root / "out").iterdir()) == ["a.npz", "export.json", "notes.txt"]


def test_a_folder_with_other_files_is_refused(root: Path) -> None:
    (root / "out").mkdir()
    (root / "out" / "a.csv").write_text("mine")
    with pytest.raises(AbawError, match="holds other files"):
        run(root, overwrite=True)


def test_a_damaged_track_fails_and_the_others_go_on(root: Path) -> None:
    store = FeatureStore.open(root / "features" / "visual-mae")
    store.track_path("b").write_bytes(b"no HDF5")
    summary = run(root)
    assert [failure.track_id for failure in summary.failed] == ["b"]
    assert summary.exit_code is ExitCode.PARTIAL
    assert len(table(root)) == 4


def test_an_unknown_format_is_refused_with_the_names(root: Path) -> None:
    with pytest.raises(AbawError, match='unknown format "xlsx"') as caught:
        run(root, format="xlsx")
    assert "csv, npz, parquet" in caught.value.fix


def test_parquet_without_pyarrow_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    with pytest.raises(AbawError, match="parquet files need pyarrow") as caught:
        run(root, format="parquet")
    assert caught.value.code is ExitCode.MISSING
    assert "pip install pyarrow" in caught.value.fix


def test_parquet_holds_the_same_columns_and_null_where_a_row_is_invalid(root: Path) -> None:
    from pyarrow import parquet

    run(root, "predictions/p", format="parquet")
    found = parquet.read_table(root / "out" / "a.parquet").to_pydict()
    assert list(found) == ["frame", "time", "valid", "valence", "arousal"]
    assert found["arousal"] == [-1, None, 0.5, 1]
