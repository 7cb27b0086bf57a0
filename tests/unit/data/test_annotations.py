"""Label files, read right or refused by line."""

import numpy as np
import pytest

from abaw.config import DataConfig
from abaw.data.annotations import LabelReader, read_label_file, read_mtl_file
from abaw.data.manifest import Track
from abaw.errors import AbawError
from abaw.tasks import AU_LABELS, TASKS

AU, EXPR, VA = (TASKS[name].heads[0] for name in ("au", "expr", "va"))
EXPR_HEADER = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"


def write(tmp_path, text, name="v.txt"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def test_values_and_mask_of_valence_arousal(tmp_path):
    labels = read_label_file(write(tmp_path, "valence,arousal\n0.5,-0.25\n-5,-5\n-5.0,1\n"), VA)
    assert labels.mask.tolist() == [[True, True], [False, False], [False, True]]
    assert labels.values.tolist() == [[0.5, -0.25], [0, 0], [0, 1]]


def test_class_index_is_one_column(tmp_path):
    labels = read_label_file(write(tmp_path, f"{EXPR_HEADER}\n0\n-1\n7\n"), EXPR)
    assert (labels.values.tolist(), labels.mask.tolist()) == ([[0], [0], [7]], [[True], [False], [True]])


def test_units_are_masked_one_by_one(tmp_path):
    labels = read_label_file(write(tmp_path, f"{','.join(AU_LABELS)}\n1,-1{',0' * 10}\n"), AU)
    assert labels.mask[0].tolist() == [True, False] + [True] * 10


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("valence,arousal\n0.5,0\n", id="as published"),
        pytest.param("valence,arousal\r\n0.5,0\r\n", id="CRLF"),
        pytest.param("valence,arousal\r0.5,0\r", id="CR alone"),
        pytest.param("\ufeffvalence,arousal\n0.5,0\n", id="byte order mark"),
        pytest.param("VALENCE,Arousal\n0.5,0\n", id="other case"),
        pytest.param("  valence ,\tarousal \n0.5,0\n", id="other spacing"),
        pytest.param("valence,arousal\n0.5,0\n\n  \n\r\n", id="blank lines at the end"),
        pytest.param("valence,arousal\n0.5,0", id="no line end"),
        pytest.param("valence,arousal\n 0.5 , 0 \n", id="spaces around values"),
        pytest.param("valence,arousal,\n0.5,0,\n", id="comma at the end of each line"),
        pytest.param("valence,arousal\n0.5,0, \n", id="comma and space at the end of a row"),
        pytest.param("valence,arousal\n0.5,0\n\x1a", id="Ctrl-Z"),
        pytest.param("valence,arousal\n0.5,0\x1a\n", id="Ctrl-Z behind the last row"),
        pytest.param("valence,arousal\n5e-1,+0.0\n", id="exponent and sign"),
    ],
)
def test_harmless_quirks_are_read_right(tmp_path, text):
    labels = read_label_file(write(tmp_path, text), VA)
    assert (labels.values.tolist(), labels.mask.tolist()) == ([[0.5, 0]], [[True, True]])


def test_class_and_unit_headers_may_differ_in_case_and_spacing(tmp_path):
    expr = "neutral, anger, disgust, fear, happiness, sadness, surprise, OTHER\n3\n"
    assert read_label_file(write(tmp_path, expr), EXPR).values.tolist() == [[3]]
    units = ", ".join(f"au {name[2:]}" for name in AU_LABELS)
    assert read_label_file(write(tmp_path, f"{units}\n{','.join('1' * 12)}\n"), AU).mask.all()


@pytest.mark.parametrize("row", ["-5,-5", "-5.0,-5.0", "-5.00,-5", " -5.0 , -5"])
def test_minus_five_is_unlabelled_however_it_is_written(tmp_path, row):
    labels = read_label_file(write(tmp_path, f"valence,arousal\n0,0\n{row}\n"), VA)
    assert labels.mask.tolist() == [[True, True], [False, False]]


def test_classes_and_units_may_be_written_as_floats(tmp_path):
    labels = read_label_file(write(tmp_path, f"{EXPR_HEADER}\n7.0\n-1.0\n2.\n"), EXPR)
    assert (labels.values[:, 0].tolist(), labels.mask[:, 0].tolist()) == ([7, 0, 2], [True, False, True])
    labels = read_label_file(write(tmp_path, f"{','.join(AU_LABELS)}\n1.0,-1.0{',0.0' * 10}\n"), AU)
    assert (labels.values[0, :2].tolist(), labels.mask[0, :2].tolist()) == ([1, 0], [True, False])


def test_header_alone_is_a_track_without_rows(tmp_path):
    assert read_label_file(write(tmp_path, "valence,arousal\n"), VA).num_rows == 0


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf", b"\x1a"])
def test_an_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "v.txt"
    path.write_bytes(content)
    with pytest.raises(AbawError, match=r"label file v\.txt is empty"):
        read_label_file(path, VA)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path, encoding):
    path = tmp_path / "v.txt"
    path.write_bytes("\ufeffvalence,arousal\n0,0\n".encode(encoding))
    with pytest.raises(AbawError, match=r"v\.txt is in UTF-16, not UTF-8") as caught:
        read_label_file(path, VA)
    assert caught.value.where == f"{path}, line 1"


def test_bytes_of_another_encoding_are_refused_by_line(tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes(b"valence,arousal\n0,0\n0,\xb10\n")
    with pytest.raises(AbawError, match="not UTF-8") as caught:
        read_label_file(path, VA)
    assert caught.value.where == f"{path}, line 3"


def test_a_file_without_a_header_is_refused(tmp_path):
    path = write(tmp_path, "0.5,0\n0.5,0\n")
    with pytest.raises(AbawError, match=r"has the header '0\.5,0', not of va") as caught:
        read_label_file(path, VA)
    assert caught.value.where == f"{path}, line 1"


def test_labels_of_another_task_are_named(tmp_path):
    path = write(tmp_path, f"{EXPR_HEADER}\n0\n")
    with pytest.raises(AbawError, match="holds labels of expr, not of va") as caught:
        read_label_file(path, VA)
    assert caught.value.where == f"{path}, line 1"


@pytest.mark.parametrize(
    ("head", "body", "line"),
    [
        (VA, "valence,arousal\n0,0\n0,1.5\n", 3),
        (VA, "valence,arousal\n0\n", 2),
        (VA, "valence,arousal\n0,0\n\n0,0\n", 3),
        (VA, "valence,arousal\n0,zero\n", 2),
        (VA, "valence,arousal\n0,nan\n", 2),
        (VA, "valence,arousal\n0,0\n-inf,0\n", 3),
        (VA, "valence,arousal\n0,1e400\n", 2),
        (VA, "valence,arousal\n0,0\n0,\n", 3),
        (VA, "valence,arousal\n0,0,\n0,0,,\n", 3),
        (VA, "valence,arousal\r\n0,0\r\n\r\n0,0\r\n", 3),
        (VA, "valence,arousal\n0,0\n  \n0,0\n", 3),
        (VA, "valence,arousal\n0;0\n", 2),
        (VA, "valence,arousal\n0,0\n-4,0\n", 3),
        (VA, "valence,arousal\n0,0\n0,0\n\x00\x00\n", 4),
        (EXPR, f"{EXPR_HEADER}\n1\nnan\n", 3),
        (EXPR, f"{EXPR_HEADER}\n-5\n", 2),
        (AU, f"{','.join(AU_LABELS)}\n{'0,' * 11}\n", 2),
        (VA, "valence,arousal\n0,0\n0,0,0\n", 3),
        (EXPR, f"{EXPR_HEADER}\n1\n8\n", 3),
        (EXPR, f"{EXPR_HEADER}\n1.5\n", 2),
        (AU, f"{','.join(AU_LABELS)}\n2{',0' * 11}\n", 2),
    ],
)
def test_a_garbled_row_is_refused_by_line(tmp_path, head, body, line):
    path = write(tmp_path, body)
    with pytest.raises(AbawError) as caught:
        read_label_file(path, head)
    assert caught.value.where == f"{path}, line {line}"


def reader_with(tmp_path, count, tolerance=1):
    write(tmp_path, "valence,arousal\n" + "0.5,0.5\n" * count, "Train_Set/v.txt")
    return LabelReader(DataConfig(annotations={"va": tmp_path}, max_row_difference=tolerance), TASKS["va"])


TRACK = Track("v", None, {"va": "train"})


def test_one_row_too_few_is_padded_as_unlabelled(tmp_path):
    reader = reader_with(tmp_path, 3)
    labels = reader.labels(TRACK, 4)["va"]
    assert labels.mask[:, 0].tolist() == [True, True, True, False]
    assert reader.differences == {"v": -1}


def test_one_row_too_many_is_cut(tmp_path):
    assert reader_with(tmp_path, 4).labels(TRACK, 3)["va"].num_rows == 3


def test_more_than_the_tolerance_is_refused_with_both_numbers(tmp_path):
    with pytest.raises(AbawError, match="7 label rows but 5 frames"):
        reader_with(tmp_path, 7).labels(TRACK, 5)
    assert reader_with(tmp_path, 7, tolerance=2).labels(TRACK, 5)["va"].num_rows == 5


def test_a_label_file_that_is_gone_is_named(tmp_path):
    reader = reader_with(tmp_path, 3)
    (tmp_path / "Train_Set" / "v.txt").unlink()
    with pytest.raises(AbawError, match=r"label file v\.txt is missing") as caught:
        reader.labels(TRACK, 3)
    assert caught.value.where == str(tmp_path / "Train_Set" / "v.txt")


def test_a_listed_track_without_labels_of_the_task_is_named(tmp_path):
    with pytest.raises(AbawError, match="track w has no labels for task va"):
        reader_with(tmp_path, 3).labels(Track("w", None, {"va": "test", "au": "train"}), 3)


def test_the_rows_of_a_label_file_are_counted_by_reading_it(tmp_path):
    reader = reader_with(tmp_path, 3)
    assert reader.count(TRACK) == 3
    write(tmp_path, "valence,arousal\n0,0\n0,2\n", "Train_Set/v.txt")
    with pytest.raises(AbawError, match="no va label"):
        reader.count(TRACK)


def test_an_unconfigured_task_says_which_key_to_add():
    with pytest.raises(AbawError, match="no labels are configured for task au") as caught:
        LabelReader(DataConfig(), TASKS["au"])
    assert "au =" in caught.value.fix


MTL_ROW = ",0.5,-5,3,1,0,0,0,0,0,0,0,0,0,0,-1"


def test_sparse_multi_task_rows_fill_what_they_label(tmp_path):
    write(tmp_path, f"image,valence,arousal,expression,aus\nv/00002.jpg{MTL_ROW}\n", "training_set_annotations.txt")
    reader = LabelReader(DataConfig(annotations={"mtl": tmp_path}), TASKS["mtl"])
    labels = reader.labels(Track("v", None, {"mtl": "train"}), 3)
    assert labels["va"].mask.tolist() == [[False, False], [True, False], [False, False]]
    assert labels["expr"].values[1, 0] == 3
    assert labels["au"].mask[1].tolist() == [True] * 11 + [False]


def test_a_multi_task_row_with_fifteen_fields_is_refused(tmp_path):
    path = write(tmp_path, f"header\nv/00001.jpg{MTL_ROW[:-3]}\n")
    with pytest.raises(AbawError, match="no multi-task label"):
        read_mtl_file(path)


def mtl(tmp_path, text):
    return write(tmp_path, text, "training_set_annotations.txt")


def test_quirks_of_a_multi_task_file_are_read_right(tmp_path):
    rows = read_mtl_file(
        mtl(tmp_path, f"\ufeffImage, Valence\r\nv/00002.jpg{MTL_ROW},\r\n w/1.jpg{MTL_ROW}\r\n\r\n\x1a")
    )
    assert {name: table[:, :4].tolist() for name, table in rows.items()} == {
        "v": [[1, 0.5, -5, 3]],
        "w": [[0, 0.5, -5, 3]],
    }


@pytest.mark.parametrize(
    "row",
    [
        f"v/00000.jpg{MTL_ROW}",
        f"v00001.jpg{MTL_ROW}",
        f"v/one.jpg{MTL_ROW}",
        "v/00001.jpg,nan,0,3" + ",0" * 12,
        "v/00001.jpg,1.5,0,3" + ",0" * 12,
        "v/00001.jpg,0,0,8" + ",0" * 12,
        "v/00001.jpg,0,0,3,2" + ",0" * 11,
        "",
    ],
)
def test_a_garbled_multi_task_row_is_refused_by_line(tmp_path, row):
    path = mtl(tmp_path, f"image,valence,arousal,expression,aus\nv/00001.jpg{MTL_ROW}\n{row}\nv/00003.jpg{MTL_ROW}\n")
    with pytest.raises(AbawError, match="no multi-task label") as caught:
        read_mtl_file(path)
    assert caught.value.where == f"{path}, line 3"


def test_a_multi_task_file_without_a_header_does_not_lose_its_first_row(tmp_path):
    with pytest.raises(AbawError, match="has no header"):
        read_mtl_file(mtl(tmp_path, f"v/00001.jpg{MTL_ROW}\n"))


def test_multi_task_rows_count_up_to_the_last_one_named(tmp_path):
    mtl(tmp_path, f"image,valence\nv/00007.jpg{MTL_ROW}\nv/00003.jpg{MTL_ROW}\n")
    reader = LabelReader(DataConfig(annotations={"mtl": tmp_path}), TASKS["mtl"])
    assert reader.count(Track("v", None, {"mtl": "train"})) == 7
    assert reader.count(Track("w", None, {"mtl": "train"})) == 0


def test_fit_keeps_values_in_place(tmp_path):
    labels = read_label_file(write(tmp_path, "valence,arousal\n0.1,0.2\n0.3,0.4\n"), VA).fit(3)
    assert np.allclose(labels.values, [[0.1, 0.2], [0.3, 0.4], [0, 0]])


def test_multi_task_rows_past_the_media_are_refused(tmp_path):
    write(tmp_path, f"header\nv/00009.jpg{MTL_ROW}\n", "training_set_annotations.txt")
    reader = LabelReader(DataConfig(annotations={"mtl": tmp_path}), TASKS["mtl"])
    with pytest.raises(AbawError, match="9 label rows but 3 frames"):
        reader.labels(Track("v", None, {"mtl": "train"}), 3)


def test_a_refused_multi_task_file_is_refused_for_every_track(tmp_path):
    row = "0.1,0.2,3,0,1,0,0,0,1,0,0,0,0,0,0"
    text = f"image,valence,arousal,expression,aus\na/00001.jpg,{row}\nb/00001.jpg,x\n"
    (tmp_path / "training_set_annotations.txt").write_text(text)
    reader = LabelReader(DataConfig(annotations={"mtl": tmp_path}), TASKS["mtl"])
    for name in ("a", "b"):
        with pytest.raises(AbawError, match="no multi-task label"):
            reader.count(Track(name, None, {"mtl": "train"}))
