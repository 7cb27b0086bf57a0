"""The whole set on disk: layout, special cases, determinism, refusals."""

import hashlib
from pathlib import Path

import av
import numpy as np
import pytest

from abaw.config_file import load_config
from abaw.data.manifest import Manifest
from abaw.errors import AbawError
from abaw.stages import synth
from abaw.stages.synth import layout
from abaw.stages.synth.plan import plan_videos


def hashes(root):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("synth") / "mini"
    synth.run(out, videos=8, seconds=1, seed=3, workers=1)
    return out


@pytest.fixture(scope="module")
def plan():
    return plan_videos(videos=8, seconds=1, seed=3)


def people(plan):
    return [(video, person) for video in plan for person in video.people]


def label_file(made, person, task):
    folder = {"train": "Train_Set", "val": "Validation_Set"}[person.splits[task]]
    return made / layout.ROOT / "annotations" / layout.CHALLENGES[task] / folder / f"{person.track_id}.txt"


def test_same_seed_gives_the_same_bytes_with_any_number_of_workers(made, tmp_path):
    synth.run(tmp_path / "mini", videos=8, seconds=1, seed=3, workers=2)
    assert hashes(tmp_path / "mini") == hashes(made)


def test_a_finished_set_is_left_alone(made):
    before = hashes(made)
    summary = synth.run(made, videos=8, seconds=1, seed=3)
    assert "already there" in dict(summary.lines)["set"]
    assert hashes(made) == before


def test_other_parameters_are_refused_with_the_difference(made):
    with pytest.raises(AbawError, match="other parameters") as caught:
        synth.run(made, videos=8, seconds=1, seed=4)
    assert "seed = 3 (asked for 4)" in caught.value.where


def test_a_foreign_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(AbawError, match="not a synthetic set"):
        synth.run(tmp_path, videos=8, seconds=1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_without_photographs_is_refused(tmp_path):
    (tmp_path / "portraits").mkdir()
    with pytest.raises(AbawError, match="no photographs"):
        synth.run(tmp_path / "out", videos=8, seconds=1, portraits=tmp_path / "portraits")
    assert not (tmp_path / "out").exists()


def test_too_few_videos_are_refused(tmp_path):
    with pytest.raises(AbawError, match="too few"):
        synth.run(tmp_path / "out", videos=4, seconds=1)


def test_nothing_is_left_behind_when_it_fails(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "empty.png").write_bytes(b"")
    with pytest.raises(AbawError, match="none of the 1 photographs"):
        synth.run(tmp_path / "out", videos=8, seconds=1, portraits=tmp_path / "photos")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_videos_have_the_planned_frames_size_clock_and_sound(made, plan):
    for video in plan:
        with av.open(str(made / layout.ROOT / "videos" / f"{video.stem}.mp4")) as container:
            stream = container.streams.video[0]
            assert sum(1 for _ in container.decode(stream)) == video.num_frames
            assert (stream.width, stream.height, stream.average_rate) == (video.width, video.height, video.fps)
            assert len(container.streams.audio) == video.has_sound


def test_the_special_cases_are_there(plan):
    assert {len(video.people) for video in plan} == {1, 2}
    assert {str(video.fps) for video in plan} == {"25", "30", "24000/1001"}
    assert {video.has_sound for video in plan} == {True, False}
    assert {person.extra_rows for _, person in people(plan)} == {-1, 0, 1}
    assert any(set(person.splits.values()) == {"train", "val"} for _, person in people(plan))


@pytest.mark.parametrize("task", ["au", "expr", "va"])
@pytest.mark.parametrize("videos", [8, 12, 40])
def test_splits_share_no_identity(task, videos):
    plan = plan_videos(videos=videos, seconds=1, seed=0)
    found = [(person.identity, person.splits.get(task)) for _, person in people(plan)]
    assert len({identity for identity, _ in found}) == len(found)
    assert sum(split == "val" for _, split in found) >= 3


def test_label_files_have_a_row_per_frame_more_or_less_as_planned(made, plan):
    for video, person in people(plan):
        for task, split in person.splits.items():
            if split != "test":
                lines = label_file(made, person, task).read_text().splitlines()
                assert lines[0] == layout.HEADERS[task]
                assert len(lines) - 1 == video.num_frames + person.extra_rows


def test_some_rows_are_marked_invalid(made, plan):
    marked = {"va": "-5,-5", "expr": "-1", "au": ",".join(["-1"] * 12)}
    for task, row in marked.items():
        files = [label_file(made, person, task) for _, person in people(plan) if person.splits[task] != "test"]
        assert any(row in file.read_text().splitlines() for file in files)


def test_test_tracks_have_sample_rows_and_no_labels(made, plan):
    for task, name in layout.SAMPLES.items():
        rows = (made / layout.SAMPLE_FOLDER / name).read_text().splitlines()
        listed = (made / layout.LIST_FOLDER / layout.LISTS[task]).read_text().split()
        expected = [
            f"{person.track_id}/{frame + 1:05d}.jpg"
            for video, person in people(plan)
            if person.splits.get(task) == "test"
            for frame in range(video.num_frames)
        ]
        assert rows[0] == layout.SAMPLE_HEADERS[task]
        assert [row.split(",")[0] for row in rows[1:]] == expected
        assert listed == list(dict.fromkeys(row.split("/")[0] for row in expected))
        assert not any(list(made.glob(f"{layout.ROOT}/annotations/**/{track_id}.txt")) for track_id in listed)


def test_crops_are_112_px_with_gaps(made, plan):
    import cv2

    counts = []
    for video, person in people(plan):
        files = sorted((made / layout.ROOT / "cropped_aligned" / person.track_id).glob("*.jpg"))
        assert cv2.imread(str(files[0])).shape == (112, 112, 3)
        assert 1 <= int(files[0].stem) <= int(files[-1].stem) <= video.num_frames
        counts.append(video.num_frames - len(files))
    assert max(counts) > 0


def test_mtl_rows_have_sixteen_fields_and_a_crop(made):
    for name in layout.MTL_FILES.values():
        header, *rows = (made / layout.ROOT / "annotations/MTL_Challenge" / name).read_text().splitlines()
        assert header == "image,valence,arousal,expression,aus"
        assert {len(row.split(",")) for row in rows} == {16}
        assert all((made / layout.ROOT / "cropped_aligned" / row.split(",")[0]).is_file() for row in rows)


def test_the_sample_of_the_multi_task_challenge_has_crops_of_test_tracks(made, plan):
    tests = {person.track_id for _, person in people(plan) if "test" in person.splits.values()}
    header, *rows = (made / layout.SAMPLE_FOLDER / "MTL.txt").read_text().splitlines()
    assert header == "image,valence,arousal,expression,aus"
    assert {row.split("/")[0] for row in rows} == tests
    assert {len(row.split(",")) for row in rows} == {16}


def test_the_configuration_that_comes_along_is_valid_and_finds_everything(made, plan):
    cfg = load_config(made / "data.toml")
    manifest = Manifest.from_config(cfg.data)
    assert {track.track_id: track.splits for track in manifest} == {p.track_id: p.splits for _, p in people(plan)}
    assert all(track.video.is_file() for track in manifest)
    assert all(cfg.submit_for(task).sample.is_file() for task in ("au", "expr", "va"))
    assert "truth" not in (made / "data.toml").read_text()


def test_the_folder_set_has_six_classes_and_numbered_test_images(made):
    assert sorted(p.name for p in (made / "lsd/train").iterdir()) == sorted(
        ["Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise"]
    )
    numbers = sorted(int(p.stem) for p in (made / "lsd/test").iterdir())
    assert numbers == list(range(len(numbers)))


def test_truth_agrees_with_the_labels(made, plan):
    video, person = next((v, p) for v, p in people(plan) if p.splits["va"] == "train" and not p.extra_rows)
    truth = np.load(made / "truth/tracks" / f"{person.track_id}.npz")
    rows = np.loadtxt(label_file(made, person, "va"), delimiter=",", skiprows=1)
    kept = rows[:, 0] > -5
    assert np.abs(rows[kept] - truth["va"][kept]).max() <= 0.0006
    assert truth["landmarks"].shape == (video.num_frames, 5, 2)


def test_a_sheet_is_drawn_on_request(made):
    synth.run(made, videos=8, seconds=1, seed=3, sheet=True)
    assert (made / "truth" / "sheet.png").is_file()
    (made / "truth" / "sheet.png").unlink()


@pytest.mark.real
def test_photographs_of_speakers_make_a_set(real_data: Path, tmp_path: Path):
    import cv2

    (tmp_path / "photos").mkdir()
    for path in sorted((real_data / "videos").glob("grid_*.mpg"))[:3]:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0)).to_ndarray(format="bgr24")
        cv2.imwrite(str(tmp_path / "photos" / f"{path.stem}.png"), frame)
    synth.run(tmp_path / "out", videos=8, seconds=1, portraits=tmp_path / "photos", workers=1)
    assert len(list((tmp_path / "out" / layout.ROOT / "videos").glob("*.mp4"))) == 8


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_garbled_marker_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "synth.json").write_text(text)
    with pytest.raises(AbawError, match="cannot be read"):
        synth.run(tmp_path / "set", videos=8, seconds=1)


def test_a_file_in_the_way_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(AbawError, match="cannot be made there"):
        synth.run(tmp_path / "file" / "set", videos=8, seconds=1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
