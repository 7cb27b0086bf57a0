from __future__ import annotations

import numpy as np

from abaw.media.faces import Detections
from abaw.media.tracking import Linker, choose_person


def link(rows: list[list[tuple[float, float, float]]], *, cuts: tuple[int, ...] = ()) -> tuple[Linker, list[int]]:
    """Rows of faces given as (centre x, side, score); returns the linker and the row of every detection."""
    linker, row_of = Linker(fps=10), []
    for row, faces in enumerate(rows):
        boxes = np.array([[x - s / 2, 50 - s / 2, x + s / 2, 50 + s / 2] for x, s, _ in faces], dtype=np.float32)
        scores = np.array([score for *_, score in faces], dtype=np.float32)
        found = Detections(boxes.reshape(-1, 4), np.zeros((len(faces), 5, 2), np.float32), scores)
        linker.add(row, found, list(range(len(row_of), len(row_of) + len(faces))), cut=row in cuts)
        row_of += [row] * len(faces)
    return linker, row_of


def choose(linker: Linker, num_rows: int, side: str | None = None, *, width: int = 200):
    return choose_person(linker.tracklets, num_rows=num_rows, width=width, side=side, min_score=0.9)


def test_a_drifting_face_is_one_tracklet():
    linker, _ = link([[(50 + 5 * row, 30, 0.99)] for row in range(10)])
    assert [len(tracklet.rows) for tracklet in linker.tracklets] == [10]


def test_two_faces_that_change_order_in_the_list_stay_apart():
    rows = [[(50, 30, 0.99), (150, 30, 0.99)], [(150, 30, 0.99), (50, 30, 0.99)]]
    linker, _ = link(rows)
    assert [round(tracklet.mean_x) for tracklet in linker.tracklets] == [50, 150]


def test_a_short_gap_is_bridged_and_a_long_one_is_not():
    short, _ = link([[(50, 30, 0.99)], [], [], [(52, 30, 0.99)]])
    long, _ = link([[(50, 30, 0.99)], *[[]] * 12, [(52, 30, 0.99)]])
    assert (len(short.tracklets), len(long.tracklets)) == (1, 2)


def test_a_cut_ends_all_tracklets():
    linker, _ = link([[(50, 30, 0.99)]] * 4, cuts=(2,))
    assert [tracklet.rows for tracklet in linker.tracklets] == [[0, 1], [2, 3]]


def test_faces_passing_each_other_keep_their_identity():
    # One of side 30 going right, one of side 44 going left, seen apart in every row.
    rows = [[(40 + 15 * row, 30, 0.99), (160 - 15 * row, 44, 0.99)] for row in range(9)]
    linker, _ = link(rows)
    assert sorted(round(tracklet.mean_side) for tracklet in linker.tracklets) == [30, 44]


def test_left_and_right_are_sides_of_the_picture():
    linker, _ = link([[(150, 30, 0.99), (50, 30, 0.99)]] * 5)
    assert choose(linker, 5, "left").picked.tolist() == [1, 3, 5, 7, 9]
    assert choose(linker, 5, "right").picked.tolist() == [0, 2, 4, 6, 8]


def test_the_side_is_decided_over_the_video_not_per_frame():
    # Both people sit in the right half; the right one is lost for rows 2-3, the left one must not take its place.
    rows = [[(120, 20, 0.99), (180, 20, 0.99)]] * 2 + [[(120, 20, 0.99)]] * 2 + [[(120, 20, 0.99), (180, 20, 0.99)]]
    linker, _ = link(rows)
    right = choose(linker, 5, "right")
    assert right.picked.tolist() == [1, 3, -1, -1, 7]
    assert right.other.tolist() == [False, False, True, True, False]


def test_one_person_alone_is_on_the_side_of_the_pictures_half():
    linker, _ = link([[(150, 30, 0.99)]] * 3)
    assert choose(linker, 3, "right").picked.tolist() == [0, 1, 2]
    assert choose(linker, 3, "left").picked.tolist() == [-1, -1, -1]


def test_without_a_side_the_dominant_face_is_taken():
    # The small face is there for 6 rows of side 20 (120), the large one for 4 rows of side 50 (200).
    linker, _ = link([[(40, 20, 0.99)]] + [[(40, 20, 0.99), (150, 50, 0.99)]] * 4 + [[(40, 20, 0.99)]])
    chosen = choose(linker, 6)
    assert chosen.picked.tolist() == [-1, 2, 4, 6, 8, -1]
    assert chosen.other.tolist() == [True, False, False, False, False, True]


def test_after_a_cut_the_only_face_is_the_person_again():
    linker, _ = link([[(50, 30, 0.99)]] * 3 + [[(150, 60, 0.99)]] * 3, cuts=(3,))
    assert choose(linker, 6).picked.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_tracklet_that_never_scores_well_is_no_face():
    linker, _ = link([[(50, 30, 0.75)]] * 3)
    chosen = choose(linker, 3)
    assert chosen.picked.tolist() == [-1, -1, -1]
    assert chosen.weak.all()


def test_weak_rows_of_a_good_tracklet_stay():
    linker, _ = link([[(50, 30, 0.99)], [(50, 30, 0.72)], [(50, 30, 0.95)]])
    assert choose(linker, 3).picked.tolist() == [0, 1, 2]


def test_rows_without_any_face_are_plain():
    linker, _ = link([[], [(50, 30, 0.99)], []])
    chosen = choose(linker, 3)
    assert chosen.picked.tolist() == [-1, 0, -1]
    assert not chosen.other.any()
    assert not chosen.weak.any()
