"""What an evaluation counts: rows, faces, gaps, tracks, confusions."""

import numpy as np
import pytest

from abaw.errors import AbawError
from abaw.store import FeatureStore
from abaw.tasks import TASKS, measure
from tests.unit.evaluation.small_set import (
    evaluated,
    plain,
    random_labels,
    random_scores,
    reference,
    write_config,
    write_faces,
    write_labels,
    write_scores,
)

VA = TASKS["va"].heads[0]
EXPR = TASKS["expr"].heads[0]


@pytest.fixture
def gappy(tmp_path):
    """Two videos of valence and arousal; of v1 rows 2 and 3 lack a score, v2 lacks all."""
    rng = np.random.default_rng(0)
    labels = {"v1": random_labels(VA, 8, rng, missing=0), "v2": random_labels(VA, 4, rng, missing=0)}
    labels["v1"][3] = -5
    scores = {track: {"va": random_scores(VA, own, rng)} for track, own in labels.items()}
    valid = {"v1": np.array([1, 1, 0, 0, 1, 1, 1, 1], bool), "v2": np.zeros(4, bool)}
    write_config(tmp_path, "va")
    write_labels(tmp_path, "va", labels)
    write_scores(tmp_path, "p", "va", scores, valid)
    return tmp_path, labels, scores, valid


def test_rows_without_a_score_count_with_the_one_that_the_policy_gives_them(gappy):
    root, labels, scores, _ = gappy
    held = scores["v1"]["va"].copy()
    held[[2, 3]] = held[1]
    wanted = reference(VA, np.vstack([held, np.zeros((4, 2))]), np.vstack(list(labels.values())))
    found = evaluated(root, "p")
    assert found.metrics()["score"] == pytest.approx(wanted.mean(), abs=1e-7)
    assert (found.num_rows, found.num_filled, found.gap) == (11, 5, "hold")
    assert found.coverage == pytest.approx(6 / 11)
    assert (found.filled_by_track(), found.hollow) == ({"v1": 1, "v2": 4}, ["v2"])
    between = scores["v1"]["va"].copy()
    between[2], between[3] = (2 * between[1] + between[4]) / 3, (between[1] + 2 * between[4]) / 3
    wanted = reference(VA, np.vstack([between, np.zeros((4, 2))]), np.vstack(list(labels.values())))
    linear = evaluated(root, "p", "submit.gap=linear")
    assert linear.metrics()["score"] == pytest.approx(wanted.mean(), abs=1e-6)
    assert linear.gap == "linear"


def test_without_a_faces_store_rows_with_a_score_are_those_with_a_face(gappy):
    root, labels, scores, valid = gappy
    found = evaluated(root, "p")
    own = reference(VA, scores["v1"]["va"][valid["v1"]], labels["v1"][valid["v1"]])
    assert found.metrics("with_face")["score"] == pytest.approx(own.mean(), abs=1e-7)
    assert (found.rows.with_face.sum(), found.faces_from) == (6, "scores of their own")


def test_the_faces_store_says_which_rows_show_a_face(gappy):
    root, labels, scores, _ = gappy
    seen = np.array([1, 0, 1, 1, 1, 1, 0, 1], bool)
    found = evaluated(root, "p", faces=write_faces(root, {"v1": seen}))
    held = scores["v1"]["va"].copy()
    held[[2, 3]] = held[1]
    own = reference(VA, held[seen], labels["v1"][seen])
    assert found.metrics("with_face")["score"] == pytest.approx(own.mean(), abs=1e-7)
    assert found.faces_from == "the faces store for 1 of 2 tracks, scores of their own for the others"
    assert [one["with_face"] for one in found.by_track()] == [5, 0]


def test_a_faces_store_of_other_rows_is_not_asked(gappy):
    root, *_ = gappy
    faces = write_faces(root, {"v1": np.ones(30, bool), "v2": np.ones(5, bool)})
    found = evaluated(root, "p", faces=faces)
    assert found.faces_from == "the faces store for 1 of 2 tracks, scores of their own for the others"


@pytest.mark.parametrize("name", TASKS)
def test_metrics_are_those_of_all_rows_pooled_under_the_same_names(tmp_path, name):
    task, rng = TASKS[name], np.random.default_rng(2)
    tables = {
        track: {head.name: random_labels(head, rows, rng) for head in task.heads}
        for track, rows in (("v1", 40), ("v2", 25))
    }
    scores = {
        track: {head.name: random_scores(head, own[head.name], rng) for head in task.heads}
        for track, own in tables.items()
    }
    write_config(tmp_path, name)
    write_labels(tmp_path, name, {track: np.hstack(list(own.values())) for track, own in tables.items()})
    write_scores(tmp_path, "p", name, scores)

    class Labels:
        def __init__(self, head):
            own = np.concatenate([one[head.name] for one in tables.values()]).astype(np.float32)
            self.values, self.mask = own, own != (-5 if head.metric == "ccc" else -1)

    decisions = {
        head.name: np.concatenate([head.settle(one[head.name], evaluated_post()) for one in scores.values()])
        for head in task.heads
    }
    wanted = measure(task, decisions, {head.name: Labels(head) for head in task.heads})
    found = evaluated(tmp_path, "p").metrics()
    assert list(found) == list(wanted)
    assert list(found.values()) == pytest.approx(list(wanted.values()), abs=1e-12)


def evaluated_post():
    from abaw.postprocess import Post

    return Post()


def classes(tmp_path, *tracks, decided):
    """An expression set of labels [T] and decisions [T] by track."""
    write_config(tmp_path, "expr")
    write_labels(tmp_path, "expr", {f"v{k}": np.array(own)[:, None] for k, own in enumerate(tracks)})
    scores = {f"v{k}": {"expr": np.eye(8, dtype=np.float32)[own]} for k, own in enumerate(decided)}
    write_scores(tmp_path, "p", "expr", scores)
    return evaluated(tmp_path, "p")


def test_a_class_that_is_in_neither_labels_nor_decisions_of_a_track_is_undefined_there(tmp_path):
    found = classes(tmp_path, [0, 0, 1], [2, 2, -1], decided=[[0, 1, 1], [2, 3, 3]])
    first, second = found.by_track()
    assert (first["expr.f1.Neutral"], first["expr.f1.Anger"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (first["expr.f1.Disgust"], second["expr.f1.Neutral"]) == (None, None)
    assert first["score"] == first["expr.f1"] == pytest.approx(2 / 3)
    assert second["expr.f1.Disgust"] == pytest.approx(2 / 3)
    assert second["expr.f1.Fear"] == 0  # decided once, never right
    assert (second["score"], second["labelled"]) == (pytest.approx(1 / 3), 2)


def test_a_track_without_labels_has_no_score(tmp_path):
    found = classes(tmp_path, [0, 1], [-1, -1], decided=[[0, 1], [3, 3]])
    assert [one["score"] for one in found.by_track()] == [1, None]
    assert found.num_recordings == 1
    plain(found.to_dict(resamples=10, seed=0))


def test_a_tracks_score_is_open_where_a_head_has_no_label(tmp_path):
    write_config(tmp_path, "mtl")
    units = [0, 1] * 6
    rows = {"v1": np.array([[0.1, 0.2, 3, *units], [0.3, -0.2, 3, *units]]), "v2": np.array([[-5, -5, 2, *[-1] * 12]])}
    write_labels(tmp_path, "mtl", rows)
    scores = {
        track: {
            "va": own[:, :2].clip(-1, 1).astype(np.float32),
            "expr": np.eye(8, dtype=np.float32)[own[:, 2].astype(int)],
            "au": (own[:, 3:] > 0).astype(np.float32),
        }
        for track, own in rows.items()
    }
    write_scores(tmp_path, "p", "mtl", scores)
    first, second = evaluated(tmp_path, "p").by_track()
    assert (first["score"], second["score"]) == (pytest.approx(3), None)
    assert (second["va.ccc"], second["expr.f1"], second["au.f1"]) == (None, 1, None)


def test_confusions_are_by_truth_and_decision(tmp_path):
    table = classes(tmp_path, [0, 0, 1], [2, 2, -1], decided=[[0, 1, 1], [2, 3, 3]]).confusion("expr")
    assert (table[0, 0], table[0, 1], table[1, 1], table[2, 2], table[2, 3]) == (1, 1, 1, 1, 1)
    assert (table.sum(), table.dtype) == (5, np.int64)


def test_values_have_no_confusion(gappy):
    with pytest.raises(ValueError, match="va has no classes"):
        evaluated(gappy[0], "p").confusion("va")


def test_a_labelled_row_past_the_end_of_the_scores_counts_with_the_last_one(tmp_path):
    write_config(tmp_path, "expr")
    write_labels(tmp_path, "expr", {"v1": np.array([[0], [1], [1]])})
    write_scores(tmp_path, "p", "expr", {"v1": {"expr": np.eye(8, dtype=np.float32)[[0, 1]]}})
    found = evaluated(tmp_path, "p")
    assert (found.num_rows, found.num_filled, found.metrics()["expr.f1.Anger"]) == (3, 1, 1)
    assert found.notes == ["1 tracks have label rows past the end of their scores, which count too: v1 +1"]


def test_labels_shorter_than_the_scores_are_settled_by_one_row_and_refused_by_more(tmp_path):
    write_config(tmp_path, "expr")
    write_labels(tmp_path, "expr", {"v1": np.array([[0], [1], [1]])})
    write_scores(tmp_path, "p", "expr", {"v1": {"expr": np.eye(8, dtype=np.float32)[[0, 1, 1, 2]]}})
    assert evaluated(tmp_path, "p").num_rows == 3
    write_labels(tmp_path, "expr", {"v1": np.array([[0], [1]])})
    with pytest.raises(AbawError, match="track v1 has 2 label rows but 4 frames"):
        evaluated(tmp_path, "p")


def test_many_more_labels_than_scores_are_refused(tmp_path):
    write_config(tmp_path, "expr")
    write_labels(tmp_path, "expr", {"v1": np.zeros((9, 1))})
    write_scores(tmp_path, "p", "expr", {"v1": {"expr": np.eye(8, dtype=np.float32)[[0, 1, 1, 2]]}})
    with pytest.raises(AbawError, match="track v1 has 9 label rows but 4 frames"):
        evaluated(tmp_path, "p")


def test_a_store_that_lacks_a_labelled_track_is_refused(tmp_path):
    write_config(tmp_path, "expr")
    write_labels(tmp_path, "expr", {"v1": np.zeros((2, 1)), "v2": np.zeros((2, 1))})
    write_scores(tmp_path, "p", "expr", {"v1": {"expr": np.eye(8, dtype=np.float32)[[0, 1]]}})
    with pytest.raises(AbawError, match="p lacks 1 of 2 val tracks: v2"):
        evaluated(tmp_path, "p")


def test_without_any_labelled_row_there_is_nothing_to_measure(tmp_path):
    with pytest.raises(AbawError, match="no row of the val tracks has a label of task expr"):
        classes(tmp_path, [-1, -1], decided=[[0, 1]])


def test_a_corrupt_track_file_is_named(gappy):
    root, *_ = gappy
    path = root / "predictions/p/v2.h5"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(AbawError, match=r"v2\.h5 is not a readable track file"):
        evaluated(root, "p")


def test_all_of_it_is_plain_json(gappy):
    root, *_ = gappy
    data = plain(evaluated(root, "p").to_dict(resamples=20, seed=0))
    assert data["countings"]["annotated"]["metrics"] == data["metrics"]
    assert [one["track"] for one in data["by_track"]] == ["v1", "v2"]
    assert data["gaps"] == {"policy": "hold", "num_rows": 5, "tracks": {"v1": 1, "v2": 4}, "without_scores": ["v2"]}
    assert set(data["intervals"]) == set(data["metrics"])


def test_one_track_is_in_memory_at_a_time(gappy):
    root, *_ = gappy
    found = evaluated(root, "p")
    held = [
        one.nbytes for by_head in found.statistics.values() for own in by_head.values() for one in vars(own).values()
    ]
    assert max(held) <= 8 * 2 * 2 * 3  # two tracks, two labels, three moments


def test_a_store_opened_for_evaluation_is_left_as_it_is(gappy):
    root, *_ = gappy
    before = {path: path.read_bytes() for path in (root / "predictions/p").iterdir()}
    evaluated(root, "p")
    assert {path: path.read_bytes() for path in (root / "predictions/p").iterdir()} == before
    assert FeatureStore.open(root / "predictions/p").track_ids() == ["v1", "v2"]
