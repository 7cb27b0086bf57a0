from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.media.audio import read_waveform
from abaw.media.video import VideoReader, read_frames, video_times


def flat(value: int | tuple[int, int, int], count: int = 6) -> list[np.ndarray]:
    return [np.full((48, 64, 3), value, dtype=np.uint8) for _ in range(count)]


def corner_picture() -> np.ndarray:
    """Grey, with a white block in the upper left corner."""
    picture = np.full((48, 64, 3), 40, dtype=np.uint8)
    picture[:16, :16] = 230
    return picture


def set_display_matrix(path: Path, matrix: tuple[float, float, float, float]) -> None:
    """Write a b c d of the track's display matrix into an mp4's tkhd box."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version and flags, times and ids, layer to reserved
    a, b, c, d = (round(value * 65536) for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def brightest_corner(image: np.ndarray) -> str:
    height, width = image.shape[0] // 3, image.shape[1] // 3
    corners = {
        "upper left": image[:height, :width],
        "upper right": image[:height, -width:],
        "lower left": image[-height:, :width],
        "lower right": image[-height:, -width:],
    }
    return max(corners, key=lambda name: corners[name].mean())


def test_rows_count_up_and_times_step_by_the_frame_rate(make_video):
    frames = list(read_frames(make_video("a.mp4", flat(90))))
    assert [frame.row for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16, 0.2])


def test_an_odd_rate_is_kept_exactly(make_video):
    with VideoReader(make_video("a.mp4", flat(90), fps=24000 / 1001)) as reader:
        assert reader.fps == pytest.approx(23.976, abs=1e-3)


def test_times_counted_at_a_rounded_rate_are_put_on_the_containers_clock(make_video):
    path = make_video("a.mp4", flat(90), fps=24000 / 1001)
    assert video_times(path, np.array([0.0, 1000.0]), nominal_fps=24) == pytest.approx([0, 1001])
    assert video_times(path, np.array([0.0, 1000.0]), nominal_fps=30).tolist() == [0, 1000]  # not this video's frames


def test_variable_times_are_kept(make_video):
    times = [0.0, 0.03, 0.1, 0.11, 0.5]
    frames = list(read_frames(make_video("a.mkv", flat(90, 5), times=times)))
    assert [frame.time_s for frame in frames] == pytest.approx(times, abs=1e-3)


def test_a_late_start_is_kept(make_video):
    times = [0.5, 0.54, 0.58]
    frames = list(read_frames(make_video("a.mkv", flat(90, 3), times=times)))
    assert [frame.time_s for frame in frames] == pytest.approx(times, abs=1e-3)


def test_times_that_stand_still_or_are_missing_are_made_to_increase(make_video):
    reader = VideoReader(make_video("a.mp4", flat(90)))
    assert reader._time_after(None, None) == 0
    assert reader._time_after(1.0, None) == pytest.approx(1.04)  # one nominal frame on
    assert reader._time_after(1.0, 1.0) == pytest.approx(1.004)  # a tenth of one


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_nothing(make_video, threads):
    pictures = [np.full((48, 64, 3), 20 * row, dtype=np.uint8) for row in range(8)]
    path = make_video("a.mp4", pictures)
    expected = [frame.image for frame in read_frames(path)]
    assert all(np.array_equal(a.image, b) for a, b in zip(read_frames(path, threads=threads), expected, strict=True))


@pytest.mark.parametrize(
    ("matrix", "corner", "shape"),
    [
        ((1, 0, 0, 1), "upper left", (48, 64)),
        ((0, 1, -1, 0), "upper right", (64, 48)),  # a quarter turn clockwise
        ((-1, 0, 0, -1), "lower right", (48, 64)),
        ((0, -1, 1, 0), "lower left", (64, 48)),
        ((-1, 0, 0, 1), "upper right", (48, 64)),  # mirrored
    ],
)
def test_the_containers_rotation_is_applied(make_video, matrix, corner, shape):
    path = make_video("a.mp4", [corner_picture()] * 2)
    set_display_matrix(path, matrix)
    image = next(read_frames(path)).image
    assert image.shape[:2] == shape
    assert brightest_corner(image) == corner


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mp4", "libx264", "yuv444p"),
        ("a.mp4", "libx264", "yuvj420p"),  # full range
        ("a.mp4", "libx264", "yuv420p10le"),
        ("a.mkv", "libx264", "gray"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.mkv", "ffv1", "gray16le"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mpg", "mpeg1video", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_any_pixel_format_becomes_rgb(make_video, name, codec, pix_fmt):
    frames = list(read_frames(make_video(name, flat(146, 4), codec=codec, pix_fmt=pix_fmt)))
    assert len(frames) == 4
    assert frames[0].image.dtype == np.uint8
    assert frames[0].image.shape == (48, 64, 3)
    # Grey H.264 does not say its range: read as limited it comes out 5 levels brighter.
    assert abs(frames[0].image.astype(int).mean() - 146) < 6


def test_colour_order_is_red_green_blue(make_video):
    image = next(read_frames(make_video("a.mp4", flat((200, 60, 20))))).image
    assert image.mean(axis=(0, 1)) == pytest.approx([200, 60, 20], abs=8)


def test_a_video_of_one_frame_has_one_row(make_video):
    assert len(list(read_frames(make_video("a.mp4", flat(90, 1))))) == 1


@pytest.mark.parametrize("content", [b"", b"this is a text file, not a video\n" * 20])
def test_files_that_are_no_video_are_named(tmp_path, content):
    path = tmp_path / "talk.mp4"
    path.write_bytes(content)
    with pytest.raises(AbawError, match=f"talk.mp4 is not a readable video .{len(content)} bytes"):
        list(read_frames(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AbawError, match="cannot read video none.mp4: No such file"):
        list(read_frames(tmp_path / "none.mp4"))


def test_sound_without_a_picture_is_refused(tmp_path, tone):
    path = tmp_path / "voice.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(AbawError, match=r"voice.mp4 has no picture \(it holds: audio\)"):
        list(read_frames(path))


@pytest.mark.parametrize(("name", "index_first"), [("a.mkv", False), ("a.mp4", True), ("a.avi", False)])
def test_a_truncated_file_gives_its_decodable_frames(make_video, name, index_first):
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    path = make_video(name, list(noise), index_first=index_first)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = list(read_frames(path))
    assert 5 < len(frames) < 30
    assert all(frame.image is not None for frame in frames[:-1])  # the last one may be cut in two


def test_a_truncated_file_that_gives_nothing_is_refused(make_video):
    path = make_video("a.mp4", flat(90))  # the index of an mp4 stands at its end
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AbawError, match="a.mp4"):
        list(read_frames(path))


def test_damage_in_the_middle_is_counted_and_what_decodes_is_kept(make_video):
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    path = make_video("a.avi", list(noise), codec="ffv1", pix_fmt="bgr0")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    with VideoReader(path) as reader:
        frames = list(reader)
    assert 20 < len(frames) <= 30
    assert np.all(np.diff([frame.time_s for frame in frames]) > 0)


@pytest.fixture
def joined(make_video, blank, tone) -> Path:
    """Three transport streams in one file, as recorders leave them: two seconds of picture, one and a half of sound."""
    path = make_video("a.ts", [blank] * 50, sound=np.tile(tone, 3))
    path.write_bytes(path.read_bytes() * 3)
    return path


def test_where_the_clock_starts_anew_it_goes_on(joined):
    with VideoReader(joined) as reader:
        times = np.array([frame.time_s for frame in reader])
    assert len(times) == 150
    assert np.diff(times) == pytest.approx(1 / 25, abs=2e-3)
    assert reader.shifts_s == pytest.approx([2, 4], abs=2e-3)


def test_sound_after_a_restart_goes_with_its_picture(joined):
    with VideoReader(joined) as reader:
        start_s = next(iter(reader)).time_s
        for _ in reader:
            pass
    assert reader.sound == pytest.approx((start_s, start_s + 5.5), abs=0.15)  # two pictures and a last sound
    waveform = read_waveform(joined, 16000, shifts_s=reader.shifts_s)
    assert (waveform.start_s, waveform.stop_s) == pytest.approx(reader.sound, abs=0.1)
    loud = np.abs(waveform.samples[: 16000 * 5].reshape(-1, 1600)).max(axis=1) > 0.1  # tenths of a second
    assert loud[1:14].all()
    assert not loud[17:19].any()
    assert loud[21:34].all()
    assert not loud[37:39].any()


def test_short_recordings_put_together_are_told_apart(make_video, blank):
    path = make_video("a.ts", [blank] * 20)  # 0.8 s
    path.write_bytes(path.read_bytes() * 5)
    with VideoReader(path) as reader:
        times = [frame.time_s for frame in reader]
    assert len(reader.shifts_s) == 4
    assert times[-1] - times[0] == pytest.approx(99 / 25, abs=1e-2)


def test_the_place_of_the_first_complaint_is_told(make_video):
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    path = make_video("a.avi", list(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with VideoReader(path) as reader:
        rows = sum(1 for _ in reader)
        assert reader.errors
        assert 0 < reader.first_error_row <= rows
