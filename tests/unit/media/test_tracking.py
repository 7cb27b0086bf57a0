from __future__ import annotations

import numpy as np
import pytest

from abaw.media.choosing import MAX_PEOPLE, choose_people, choose_person, group_people
from abaw.media.faces import Detections
from abaw.media.tracking import Linker
from abaw.media.tracklet import Tracklet

# Descriptors of two strangers, and of somebody whose cosine is 0.8 with ann and 0.6 with bob.
LOOKS = {"ann": (1.0, 0.0), "bob": (0.0, 1.0), "ann turned": (0.8, 0.6)}
SAME = 0.7


def link(rows: list[list[tuple]], *, cuts: tuple[int, ...] = ()) -> tuple[Linker, list[int]]:
    """Rows of faces given as (centre x, side, score[, look]); returns the linker and the row of every detection."""
    linker, row_of = Linker(fps=10), []
    for row, faces in enumerate(rows):
        boxes = np.array([[x - s / 2, 50 - s / 2, x + s / 2, 50 + s / 2] for x, s, *_ in faces], dtype=np.float32)
        scores = np.array([face[2] for face in faces], dtype=np.float32)
        found = Detections(boxes.reshape(-1, 4), np.zeros((len(faces), 5, 2), np.float32), scores)
        indices = list(range(len(row_of), len(row_of) + len(faces)))
        tracklets = linker.add(row, found, indices, cut=row in cuts)
        for face, tracklet in zip(faces, tracklets, strict=True):
            if len(face) > 3 and tracklet.wants_descriptor:
                tracklet.descriptors.append(np.array(LOOKS[face[3]]))
        row_of += [row] * len(faces)
    return linker, row_of


def tracklet(rows: list[int], *looks: str, x: float = 50, side: float = 30, score: float = 0.99) -> Tracklet:
    """A tracklet made by hand; its detections are numbered as its rows."""
    made = Tracklet(descriptors=[np.array(LOOKS[look]) for look in looks])
    for row in rows:
        made.extend(row, row, np.array([x - side / 2, 0, x + side / 2, side]), score)
    return made


def people_of(tracklets: list[Tracklet], *, same: float = SAME) -> list[int]:
    group_people(tracklets, same=same, min_score=0.9)
    return [one.person for one in tracklets]


def choose(linker: Linker, num_rows: int, side: str | None = None, *, width: int = 200, by_identity: bool = False):
    group_people(linker.tracklets, same=SAME, min_score=0.9)
    options = {"num_rows": num_rows, "width": width, "side": side, "min_score": 0.9, "by_identity": by_identity}
    return choose_person(linker.tracklets, **options)


def choose_all(linker: Linker, num_rows: int, *, min_rows: int = 1):
    group_people(linker.tracklets, same=SAME, min_score=0.9)
    return choose_people(linker.tracklets, num_rows=num_rows, min_score=0.9, min_rows=min_rows)


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
    assert [tracklet.rows.tolist() for tracklet in linker.tracklets] == [[0, 1], [2, 3]]


def test_faces_passing_each_other_keep_their_identity():
    # One of side 30 going right, one of side 44 going left, seen apart in every row.
    rows = [[(40 + 15 * row, 30, 0.99), (160 - 15 * row, 44, 0.99)] for row in range(9)]
    linker, _ = link(rows)
    assert sorted(round(tracklet.mean_side) for tracklet in linker.tracklets) == [30, 44]


def test_faces_of_one_size_that_hide_each_other_in_passing_keep_their_identity():
    # One goes right, one left, 10 pixels a row; they meet in row 6, and only the first is seen in rows 5 to 7.
    rows = [[(40 + 10 * row, 30, 0.99)] + [(160 - 10 * row, 30, 0.99)] * (abs(row - 6) > 1) for row in range(13)]
    linker, _ = link(rows)
    first, second = linker.tracklets
    assert first.rows.tolist() == list(range(13))
    assert first.last.tolist() == [145, 35, 175, 65]
    assert second.last.tolist() == [25, 35, 55, 65]


def test_a_hidden_face_that_stopped_is_found_again():
    # 10 pixels a row, then hidden for five rows behind which it stays.
    linker, _ = link([[(40 + 10 * row, 30, 0.99)] for row in range(6)] + [[]] * 5 + [[(90, 30, 0.99)]])
    assert len(linker.tracklets) == 1


def test_the_linker_tells_the_tracklet_of_each_face_in_order():
    linker = Linker(fps=10)
    boxes = np.array([[0, 0, 30, 30], [100, 0, 130, 30]], dtype=np.float32)
    faces = Detections(boxes, np.zeros((2, 5, 2), np.float32), np.ones(2, np.float32))
    first, second = linker.add(0, faces, [0, 1])
    assert linker.add(1, faces[[1, 0]], [2, 3]) == [second, first]
    assert (first.indices.tolist(), second.indices.tolist()) == ([0, 3], [1, 2])


def test_the_first_and_every_25th_row_of_a_tracklet_are_described_up_to_16_times():
    linker, _ = link([[(50, 30, 0.99, "ann")]] * 51)
    assert len(linker.tracklets[0].descriptors) == 3  # of rows 0, 25 and 50
    long, _ = link([[(50, 30, 0.99, "ann")]] * 25 * 20)
    assert len(long.tracklets[0].descriptors) == 16


def test_another_face_after_a_cut_is_another_person():
    linker, _ = link([[(50, 30, 0.99, "ann")]] * 3 + [[(50, 30, 0.99, "bob")]] * 3, cuts=(3,))
    assert choose(linker, 6).person.tolist() == [1, 1, 1, 2, 2, 2]


def test_the_same_face_after_a_cut_is_the_same_person():
    linker, _ = link([[(50, 30, 0.99, "ann")]] * 3 + [[(150, 60, 0.99, "ann turned")]] * 3, cuts=(3,))
    assert choose(linker, 6).person.tolist() == [1] * 6


def test_a_cut_to_another_face_and_back_gives_two_switches():
    shots = [[(50, 30, 0.99, who)] for who in ("ann", "ann", "bob", "bob", "ann turned", "ann turned")]
    linker, _ = link(shots, cuts=(2, 4))
    assert choose(linker, 6).person.tolist() == [1, 1, 2, 2, 1, 1]


def test_tracklets_are_one_person_when_the_mean_cosine_of_their_descriptors_says_so():
    # ann against (ann, bob): cosines 1 and 0, mean 0.5.
    tracklets = [tracklet([0, 1], "ann", "bob"), tracklet([5], "ann")]
    assert people_of(tracklets, same=0.5) == [1, 1]
    assert people_of(tracklets, same=0.51) == [1, 2]


def test_a_tracklet_joins_the_person_it_looks_most_alike():
    tracklets = [tracklet([0, 1], "bob"), tracklet([5, 6], "ann"), tracklet([9], "ann turned")]
    assert people_of(tracklets, same=0.5) == [1, 2, 2]  # cosines 0.6 and 0.8


def test_faces_seen_together_are_two_people_however_alike():
    tracklets = [tracklet([0, 1, 2], "ann"), tracklet([0, 1, 2], "ann", x=150), tracklet([5, 6], "ann")]
    assert people_of(tracklets) == [1, 2, 1]


def test_one_shared_row_in_five_does_not_make_two_people():
    assert people_of([tracklet([0, 1, 2, 3, 4], "ann"), tracklet([4, 5, 6, 7, 8], "ann")]) == [1, 1]
    assert people_of([tracklet([0, 1, 2, 3, 4], "ann"), tracklet([3, 4, 5, 6, 7], "ann")]) == [1, 2]


def test_a_short_tracklet_within_a_long_one_is_somebody_else():
    assert people_of([tracklet(list(range(50)), "ann"), tracklet([20, 21], "ann", side=900)]) == [1, 2]


def test_a_tracklet_without_descriptors_belongs_to_the_person_before_it():
    tracklets = [tracklet([0, 1], "ann"), tracklet([4, 5], "bob"), tracklet([8]), tracklet([9], "ann")]
    assert people_of(tracklets) == [1, 2, 2, 1]


def test_without_descriptors_two_people_keep_their_places_over_a_cut():
    tracklets = [tracklet([row, row + 1], x=x) for row in (0, 2) for x in (50, 150)]
    assert people_of(tracklets) == [1, 2, 1, 2]


def test_a_tracklet_that_never_scores_well_is_nobody():
    assert people_of([tracklet([0], "ann", score=0.75), tracklet([0], "bob")]) == [0, 1]


def test_people_are_numbered_by_appearance_not_by_strength():
    assert people_of([tracklet([5, 6, 7, 8], "bob"), tracklet([0], "ann")]) == [2, 1]


def test_more_people_than_are_compared_stay_apart():
    looks = np.eye(250)
    tracklets = [tracklet([row]) for row in range(250)]
    for one, look in zip(tracklets, looks, strict=True):
        one.descriptors.append(look)
    assert people_of(tracklets) == list(range(1, 251))
    assert len(choose_people(tracklets, num_rows=250, min_score=0.9)) == MAX_PEOPLE


def test_the_dominant_person_is_so_over_all_their_tracklets():
    # ann: twice 3 rows of side 20 (120); bob: 4 rows of side 25 (100), more than either of ann's tracklets (60).
    shots = [[(50, 20, 0.99, "ann")]] * 3 + [[(50, 25, 0.99, "bob")]] * 4 + [[(50, 20, 0.99, "ann turned")]] * 3
    linker, _ = link(shots, cuts=(3, 7))
    chosen = choose(linker, 10, by_identity=True)
    assert chosen.picked.tolist() == [0, 1, 2, -1, -1, -1, -1, 7, 8, 9]
    assert chosen.other.tolist() == [False] * 3 + [True] * 4 + [False] * 3
    assert chosen.person.tolist() == [1, 1, 1, 0, 0, 0, 0, 1, 1, 1]


def test_where_looks_do_not_decide_the_other_person_stays_and_is_noted():
    linker, _ = link([[(50, 30, 0.99, "bob")]] * 2 + [[(50, 60, 0.99, "ann")]] * 3, cuts=(2,))
    chosen = choose(linker, 5)
    assert chosen.picked.tolist() == [0, 1, 2, 3, 4]
    assert chosen.person.tolist() == [1, 1, 2, 2, 2]


def test_a_side_belongs_to_a_person_over_the_whole_video():
    # ann sits left for four rows; then the camera shows both from behind for one.
    shots = [[(50, 30, 0.99, "ann"), (150, 30, 0.99, "bob")]] * 4 + [[(50, 30, 0.99, "bob"), (150, 30, 0.99, "ann")]]
    linker, _ = link(shots, cuts=(4,))
    assert choose(linker, 5, "left", by_identity=True).picked.tolist() == [0, 2, 4, 6, 9]
    assert choose(linker, 5, "right", by_identity=True).picked.tolist() == [1, 3, 5, 7, 8]


def test_of_a_sides_people_the_dominant_one_stays():
    shots = [[(50, 30, 0.99, "ann"), (150, 30, 0.99)]] * 4 + [[(40, 30, 0.99, "bob"), (150, 30, 0.99)]] * 2
    linker, _ = link(shots, cuts=(4,))
    left = choose(linker, 6, "left", by_identity=True)
    assert left.picked.tolist() == [0, 2, 4, 6, -1, -1]
    assert left.other.tolist() == [False] * 4 + [True] * 2


def test_who_turns_away_for_long_keeps_the_side():
    # The right one is away for 12 rows, over a second: two tracklets. Nobody takes the place meanwhile.
    both = [(120, 20, 0.99, "ann"), (180, 20, 0.99, "bob")]
    linker, _ = link([both] * 2 + [both[:1]] * 12 + [both] * 2)
    right = choose(linker, 16, "right")
    assert right.picked.tolist() == [1, 3, *[-1] * 12, 17, 19]
    assert right.person.tolist() == [1, 1, *[0] * 12, 1, 1]


def test_each_track_numbers_its_people_from_1():
    linker, _ = link([[(50, 30, 0.99, "ann"), (150, 30, 0.99, "bob")]] * 3)
    assert choose(linker, 3, "right").person.tolist() == [1, 1, 1]
    assert choose(linker, 3, "right").person.dtype == np.uint16


def test_all_people_come_strongest_first():
    # ann: 3 rows of side 20, then 2 of 20 (100); bob: 3 rows of side 40 (120).
    shots = [[(50, 20, 0.99, "ann")]] * 3 + [[(50, 40, 0.99, "bob")]] * 3 + [[(50, 20, 0.99, "ann")]] * 2
    linker, _ = link(shots, cuts=(3, 6))
    bob, ann = choose_all(linker, 8)
    assert bob.picked.tolist() == [-1, -1, -1, 3, 4, 5, -1, -1]
    assert ann.picked.tolist() == [0, 1, 2, -1, -1, -1, 6, 7]
    assert bob.person.tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert ann.other.tolist() == [False] * 3 + [True] * 3 + [False] * 2


@pytest.mark.parametrize(("min_rows", "people"), [(1, 2), (3, 1)])
def test_people_seen_too_shortly_are_left_out_of_all(min_rows, people):
    linker, _ = link([[(50, 30, 0.99)]] * 2 + [[(50, 30, 0.99), (150, 80, 0.99)]] * 2)
    assert len(choose_all(linker, 4, min_rows=min_rows)) == people


def test_in_a_video_too_short_for_anyone_those_seen_longest_stay():
    linker, _ = link([[(50, 30, 0.99), (150, 30, 0.99)]] * 2 + [[(50, 30, 0.99), (150, 30, 0.99), (100, 9, 0.99)]])
    assert [one.picked.tolist() for one in choose_all(linker, 3, min_rows=12)] == [[0, 2, 4], [1, 3, 5]]


def test_among_all_people_nobody_is_no_track():
    linker, _ = link([[(50, 30, 0.75)]] * 3)
    assert choose_all(linker, 3) == []


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
    assert chosen.weak.tolist() == [0, 1, 2]


def test_of_two_faces_below_the_score_the_better_is_told():
    linker, _ = link([[(50, 30, 0.75), (150, 30, 0.72)]] * 2)
    assert choose(linker, 2).weak.tolist() == [0, 2]


def test_weak_rows_of_a_good_tracklet_stay():
    linker, _ = link([[(50, 30, 0.99)], [(50, 30, 0.72)], [(50, 30, 0.95)]])
    assert choose(linker, 3).picked.tolist() == [0, 1, 2]


def test_rows_without_any_face_are_plain():
    linker, _ = link([[], [(50, 30, 0.99)], []])
    chosen = choose(linker, 3)
    assert chosen.picked.tolist() == [-1, 0, -1]
    assert not chosen.other.any()
    assert chosen.weak.tolist() == [-1, -1, -1]
