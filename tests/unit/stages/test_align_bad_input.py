"""`align` over bad inputs: each fails by its name or gives a right track, and no other track is lost."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest

from abaw.config_file import load_config
from abaw.errors import AbawError, ExitCode
from abaw.stages import align
from abaw.store import FeatureStore, Reason

TOML = '[data]\nvideos = "videos"\n[run]\nworkers = 1\n[align]\ndetector = "center"\n'
NOBODY = 65534
TMPFS_KB = 512


def run(folder: Path, *overrides: str, **options):
    (folder / "data.toml").write_text(TOML)
    return align.run(load_config(folder / "data.toml", overrides=overrides), **options)


def store(folder: Path) -> FeatureStore:
    return FeatureStore.open(folder / "features" / "faces", kind="faces")


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "features" / "faces").glob("*.h5")}


def left_over(folder: Path) -> list[Path]:
    return [path for path in (folder / "features" / "faces").iterdir() if path.suffix not in (".h5", ".json")]


def write_voice(path: Path, tone: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_no_frame(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.start_encoding()


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_files_fail_by_name_and_all_others_are_there(tmp_path, make_video, blank, tone, workers):
    videos = tmp_path / "videos"
    for name, pix_fmt in [("first", "yuv420p"), ("full", "yuvj420p"), ("ten", "yuv420p10le"), ("whole", "yuv444p")]:
        make_video(f"videos/{name}.mp4", [blank] * 4, pix_fmt=pix_fmt)
    make_video("videos/alpha.mkv", [blank] * 4, codec="ffv1", pix_fmt="bgra")
    make_video("videos/grey.mkv", [blank] * 4, codec="ffv1", pix_fmt="gray")
    make_video("videos/one.mp4", [blank])
    cut = make_video("videos/cut.mp4", [blank] * 4)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (videos / "zero.mp4").write_bytes(b"")
    (videos / "text.mp4").write_text("this is a text file, not a video\n" * 20)
    write_voice(videos / "voice.mp4", tone)
    write_no_frame(videos / "none.mkv")
    summary = run(tmp_path, f"run.workers={workers}")
    rows = {name: store(tmp_path).num_rows(name) for name in store(tmp_path).track_ids()}
    assert rows == {"alpha": 4, "first": 4, "full": 4, "grey": 4, "one": 1, "ten": 4, "whole": 4}
    assert sorted(failure.track_id for failure in summary.failed) == ["cut", "none", "text", "voice", "zero"]
    for failure in summary.failed:
        assert f"{failure.track_id}.m" in failure.message
        assert not failure.bug
    assert summary.exit_code == ExitCode.PARTIAL
    assert left_over(tmp_path) == []


def test_names_with_spaces_dots_and_other_letters_are_tracks(tmp_path, make_video, blank):
    names = ["a talk", "two..dots", "größe", "東京", "it's $HOME & more"]
    for name in names:
        make_video(f"videos/{name}.mp4", [blank] * 3)
    assert not run(tmp_path).failed
    assert store(tmp_path).track_ids() == sorted(names)
    assert all(store(tmp_path).num_rows(name) == 3 for name in names)


@pytest.mark.parametrize("name", ["../outside", "..", "a/b"])
def test_a_name_that_leads_out_of_the_store_is_refused_before_anything_is_done(tmp_path, make_video, blank, name):
    make_video("videos/a.mp4", [blank] * 3)
    (tmp_path / "test.txt").write_text(f"{name}\n")
    with pytest.raises(AbawError, match="test.txt, line 1"):
        run(tmp_path, 'data.test={va="test.txt"}')
    assert not (tmp_path / "features").exists()


def test_hidden_files_beside_the_videos_are_no_tracks(tmp_path, make_video, blank):
    for name in ("a.mp4", "..mp4", "...mp4", "._a.mp4"):
        make_video(f"videos/{name}", [blank] * 3)
    assert not run(tmp_path).failed
    assert store(tmp_path).track_ids() == ["a"]


def test_two_files_that_would_be_one_track_are_refused_with_both_names(tmp_path, make_video, blank):
    paths = [make_video(f"videos/{name}", [blank] * 3) for name in ("a.mkv", "a.mp4")]
    with pytest.raises(AbawError, match='both be track "a"') as caught:
        run(tmp_path)
    assert all(str(path) in caught.value.where for path in paths)
    assert not (tmp_path / "features").exists()


def test_a_folder_without_any_face_is_tracks_of_no_face(tmp_path, make_video, blank):
    make_video("videos/a.mp4", [blank] * 12)
    summary = run(tmp_path, "align.detector=mtcnn")
    assert not summary.failed
    assert set(store(tmp_path).read("a", "reason").tolist()) == {Reason.NO_FACE}
    assert not store(tmp_path).valid("a").any()


# -- places that may not be read ---------------------------------------------------------------------------------------
@contextmanager
def without_privileges() -> Iterator[None]:
    """As a user to whom permissions apply: root becomes nobody meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder(make_video, blank) -> Iterator[Path]:
    """Two videos in a folder that anybody may enter; pytest's own folders are private to its user."""
    folder = Path(tempfile.mkdtemp())
    (folder / "videos").mkdir()
    for name in ("a", "b"):
        shutil.copy(make_video(f"{name}.mp4", [blank] * 3), folder / "videos")
    (folder / "data.toml").touch()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    yield folder
    for path in (folder / "videos", folder):
        path.chmod(0o777)
    shutil.rmtree(folder)


def test_a_video_that_may_not_be_read_fails_alone(open_folder):
    (open_folder / "videos" / "a.mp4").chmod(0)
    with without_privileges():
        summary = run(open_folder)
    assert [failure.track_id for failure in summary.failed] == ["a"]
    assert "cannot read video a.mp4: Permission denied" in summary.failed[0].message
    assert store(open_folder).track_ids() == ["b"]


def test_a_folder_of_videos_that_may_not_be_read_is_named(open_folder):
    (open_folder / "videos").chmod(0)
    with without_privileges(), pytest.raises(AbawError) as caught:
        run(open_folder)
    assert str(open_folder / "videos") in f"{caught.value.what} {caught.value.where}"


def test_a_place_that_may_not_be_written_is_named(open_folder):
    open_folder.chmod(0o555)
    with without_privileges(), pytest.raises(AbawError, match="could not be written") as caught:
        align.run(load_config(open_folder / "data.toml", overrides=['data.videos="videos"', "align.detector=center"]))
    assert str(open_folder) in caught.value.where


# -- a full disk -------------------------------------------------------------------------------------------------------
@pytest.fixture
def small_and_large(tmp_path, make_video, blank) -> Path:
    """Two short videos and a longer one of noise between them, whose crops need far more room."""
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    make_video("videos/a.mp4", [blank] * 3)
    make_video("videos/b.mp4", [np.roll(noise, row, axis=1) for row in range(120)])
    make_video("videos/c.mp4", [blank] * 3)
    return tmp_path


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_track_for_which_there_is_no_room_fails_alone_and_is_done_later(small_and_large):
    with files_at_most(1 << 18):
        summary = run(small_and_large)
    assert [failure.track_id for failure in summary.failed] == ["b"]
    assert "free disk space" in summary.failed[0].message
    assert not summary.failed[0].bug
    assert store(small_and_large).track_ids() == ["a", "c"]
    assert left_over(small_and_large) == []
    assert not run(small_and_large).failed
    done = file_bytes(small_and_large)
    run(small_and_large, overwrite=True)
    assert file_bytes(small_and_large) == done


def test_a_disk_that_is_really_full_ends_in_a_message_and_not_in_half_a_file(small_and_large):
    """A file system of half a megabyte, mounted for one command only."""
    place = small_and_large / "features"
    place.mkdir()
    (small_and_large / "data.toml").write_text(TOML)
    mount = f"mount -t tmpfs -o size={TMPFS_KB}k none '{place}'"
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here (needs privileges)")
    command = f"'{sys.executable}' -m abaw align -c '{small_and_large / 'data.toml'}'; code=$?"
    whole = f"{mount} && {command}; ls -A '{place}/faces'; exit $code"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", whole], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.PARTIAL
    assert "free disk space" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split()[-3:] == ["a.h5", "c.h5", "store.json"]
