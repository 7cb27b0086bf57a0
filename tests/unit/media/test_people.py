from __future__ import annotations

import cv2
import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.media.faces import DetectorOptions, build_detector
from abaw.media.people import AlignSettings, align_video
from abaw.media.warp import Aligner, template
from abaw.store import Reason


@pytest.fixture(scope="module")
def mtcnn():
    return build_detector("mtcnn", DetectorOptions())


def aligned(path, sides, detector, settings, **options) -> list[dict[str, np.ndarray]]:
    """The tracks of a video with their crops in memory."""
    with align_video(path, sides, detector, settings, **options) as found:
        return [
            {**arrays, "jpeg": np.concatenate([*arrays["jpeg"].blocks, [0]])[:-1].astype(np.uint8)}
            for arrays in found.tracks
        ]


def crop(arrays: dict[str, np.ndarray], row: int) -> np.ndarray:
    begin, end = arrays["offsets"][row : row + 2]
    return cv2.imdecode(arrays["jpeg"][begin:end], cv2.IMREAD_COLOR)[..., ::-1]


def test_every_frame_gets_a_row_and_its_face(make_video, face_pictures, mtcnn):
    path = make_video("a.mp4", face_pictures)
    (arrays,) = aligned(path, [None], mtcnn, AlignSettings())
    with align_video(path, [None], mtcnn, AlignSettings()) as found:
        assert found.fps == 25
    assert arrays["valid"].all()
    assert arrays["time"] == pytest.approx(np.arange(12) / 25)
    assert crop(arrays, 7).shape == (112, 112, 3)


def test_the_stored_warp_maps_landmarks_onto_the_template(make_video, face_pictures, mtcnn):
    (arrays,) = aligned(make_video("a.mp4", face_pictures), [None], mtcnn, AlignSettings())
    for landmarks, warp in zip(arrays["landmarks"], arrays["warp"], strict=True):
        residual = landmarks @ warp[:, :2].T + warp[:, 2] - template(112)
        assert np.abs(residual).mean() < 5
        assert np.abs(residual.mean(axis=0)).max() < 1e-3  # least squares leave no shift


def test_the_boxes_follow_the_motion(make_video, face_pictures, mtcnn):
    (arrays,) = aligned(make_video("a.mp4", face_pictures), [None], mtcnn, AlignSettings())
    assert arrays["box"][11, 0] - arrays["box"][0, 0] == pytest.approx(11, abs=4)


def test_rows_without_a_face_are_zeros_with_the_reason(make_video, face_pictures, blank, mtcnn):
    path = make_video("a.mp4", [*face_pictures[:3], *[blank] * 5, *face_pictures[:3]])
    (arrays,) = aligned(path, [None], mtcnn, AlignSettings())
    assert arrays["valid"].tolist() == [True] * 3 + [False] * 5 + [True] * 3
    assert set(arrays["reason"][3:8]) == {Reason.NO_FACE}
    for name in ("box", "landmarks", "warp", "score"):
        assert not arrays[name][3:8].any()
    assert arrays["offsets"][3] == arrays["offsets"][8]


def test_a_video_without_any_face_is_a_normal_result(make_video, blank, mtcnn):
    (arrays,) = aligned(make_video("a.mp4", [blank] * 9), [None], mtcnn, AlignSettings())
    assert arrays["reason"].tolist() == [Reason.NO_FACE] * 9
    assert arrays["jpeg"].size == 0
    assert arrays["offsets"].tolist() == [0] * 10


def test_two_people_come_out_by_side(make_video, pair_pictures, mtcnn):
    """The input is composed of one portrait and its mirror image."""
    left, right = aligned(make_video("a.mp4", pair_pictures), ["left", "right"], mtcnn, AlignSettings())
    assert left["valid"].all()
    assert right["valid"].all()
    assert left["box"][:, 2].max() < 120 < right["box"][:, 0].min()
    mirrored = crop(right, 0)[:, ::-1].astype(int)
    assert np.abs(crop(left, 0)[30:100, 30:82] - mirrored[30:100, 30:82]).mean() < 12


def test_the_box_warp_and_other_sizes(make_video, face_pictures, mtcnn):
    settings = AlignSettings(aligner=Aligner(64, 0.2, "box"))
    (arrays,) = aligned(make_video("a.mp4", face_pictures[:2]), [None], mtcnn, settings)
    assert crop(arrays, 0).shape == (64, 64, 3)
    assert arrays["warp"][0, 0, 1] == 0


def test_the_same_video_gives_the_same_bytes(make_video, face_pictures, mtcnn):
    path = make_video("a.mp4", face_pictures)
    first, second = (aligned(path, [None], mtcnn, AlignSettings())[0] for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_truncated_video_gives_the_rows_that_decode(make_video, face_pictures, mtcnn):
    path = make_video("a.mkv", face_pictures * 3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (arrays,) = aligned(path, [None], mtcnn, AlignSettings())
    assert 3 < len(arrays["valid"]) < 36
    assert arrays["valid"].all()


def test_a_frame_cut_in_two_is_a_decode_error(make_video, face_pictures, mtcnn):
    path = make_video("a.avi", face_pictures * 3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with align_video(path, [None], mtcnn, AlignSettings()) as found:
        assert found.facts["decode_errors"] == 1
        assert found.tracks[0]["reason"][-1] == Reason.DECODE_ERROR
        assert found.tracks[0]["valid"][:-1].all()


def test_an_unreadable_video_is_an_error_not_a_missing_face(tmp_path, mtcnn):
    (tmp_path / "a.mp4").write_bytes(b"text")
    with pytest.raises(AbawError, match="not a readable video"):
        align_video(tmp_path / "a.mp4", [None], mtcnn, AlignSettings())


def test_the_facts_tell_what_the_file_says_of_itself(make_video, blank, tone):
    path = make_video("a.mp4", [blank] * 10, sound=tone)
    with align_video(path, [None], build_detector("center", DetectorOptions()), AlignSettings()) as found:
        assert found.facts["header_frames"] == 10
        assert found.facts["duration_s"] == pytest.approx(0.4)
        assert found.facts["sound"] is True
        assert found.facts["sound_end_s"] > found.facts["sound_start_s"]


def test_a_video_without_sound_says_so(make_video, blank):
    path = make_video("a.mp4", [blank] * 3)
    with align_video(path, [None], build_detector("center", DetectorOptions()), AlignSettings()) as found:
        assert found.facts["sound"] is False
        assert "sound_end_s" not in found.facts


def test_all_faces_are_a_track_each(make_video, pair_pictures, mtcnn):
    """The input is composed of one portrait and its mirror image."""
    first, second = aligned(make_video("a.mp4", pair_pictures), [None], mtcnn, AlignSettings(), all_faces=True)
    assert first["valid"].all()
    assert second["valid"].all()
    assert np.abs(first["box"][:, 0] - second["box"][:, 0]).min() > 60


def test_all_faces_of_an_empty_picture_are_one_track_without_rows(make_video, blank, mtcnn):
    (only,) = aligned(make_video("a.mp4", [blank] * 4), [None], mtcnn, AlignSettings(), all_faces=True)
    assert only["reason"].tolist() == [Reason.NO_FACE] * 4


def test_of_a_refused_face_box_and_score_stay(make_video, face_pictures, mtcnn):
    settings = AlignSettings(min_score=1.0)
    (arrays,) = aligned(make_video("a.mp4", face_pictures[:3]), [None], mtcnn, settings)
    assert arrays["reason"].tolist() == [Reason.LOW_SCORE] * 3
    assert (arrays["score"] > 0.9).all()
    assert (arrays["box"][:, 2] > arrays["box"][:, 0]).all()
    assert not arrays["landmarks"].any()
    assert arrays["jpeg"].size == 0
