"""Csv files of labelled images."""

from pathlib import Path

import numpy as np
import pytest

from abaw.data.key_csv import read_key_csv
from abaw.errors import AbawError
from abaw.tasks import TASKS

EXPR, VA, AU = (TASKS[name].heads[0] for name in ("expr", "va", "au"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_classes_are_mapped_by_name_and_those_without_a_counterpart_are_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path, "path,label\na/1.jpg,1\na/2.jpg,7\na/3.jpg,Contempt\n./b\\4.jpg,happy\nb/5.jpg,\nb/6.jpg,-1\n"
    )
    table = read_key_csv(path, [EXPR], space="affectnet8")
    assert table.keys == ["a/1.jpg", "a/2.jpg", "a/3.jpg", "b/4.jpg", "b/5.jpg", "b/6.jpg"]
    labels = table.labels["expr"]
    assert labels.mask[:, 0].tolist() == [True, False, False, True, False, False]
    assert labels.values[[0, 3], 0].tolist() == [4, 4]  # Happiness of Aff-Wild2, which AffectNet calls 1
    assert table.notes == ["labels.csv: images of class Contempt, which expr lacks: 2"]


def test_without_a_space_classes_are_the_task_s_own(tmp_path: Path) -> None:
    table = read_key_csv(write(tmp_path, "image,expression\nx.jpg,3\ny.jpg,Other\n"), [EXPR])
    assert table.labels["expr"].values[:, 0].tolist() == [3, 7]


def test_values_are_unlabelled_where_affectnet_or_aff_wild2_say_so(tmp_path: Path) -> None:
    table = read_key_csv(
        write(tmp_path, "\ufeffPath,Arousal,Valence\r\na.jpg,0.5,-0.25\r\nb.jpg,-5,-5\r\nc.jpg,-2,\r\n"), [VA]
    )
    assert table.labels["va"].values[0].tolist() == [-0.25, 0.5]
    assert table.labels["va"].mask.tolist() == [[True, True], [False, False], [False, False]]


def test_units_that_are_not_named_stay_unlabelled_and_others_are_said(tmp_path: Path) -> None:
    table = read_key_csv(write(tmp_path, "path,AU_12,au1,AU5\na.jpg,1,0,1\nb.jpg,-1,1,0\n"), [AU])
    mask, values = table.labels["au"].mask, table.labels["au"].values
    assert np.flatnonzero(mask[0]).tolist() == [0, 6]  # AU1 and AU12
    assert values[0, [0, 6]].tolist() == [0, 1]
    assert mask[1, 6] == np.False_
    assert table.notes == ["labels.csv: 1 columns were left out, the first AU5"]


def test_a_file_may_label_several_heads(tmp_path: Path) -> None:
    path = write(tmp_path, "path,label,valence,arousal\na.jpg,Fear,0.5,0.5\n")
    table = read_key_csv(path, TASKS["mtl"].heads, space="affectnet8")
    assert {name: bool(labels.mask.any()) for name, labels in table.labels.items()} == {
        "va": True,
        "expr": True,
        "au": False,
    }


def test_a_repeated_row_counts_once_and_a_contradiction_is_refused(tmp_path: Path) -> None:
    assert read_key_csv(write(tmp_path, "path,label\na.jpg,1\na.jpg,1\n"), [EXPR]).keys == ["a.jpg"]
    with pytest.raises(AbawError, match="two different labels") as caught:
        read_key_csv(write(tmp_path, "path,label\na.jpg,1\nb.jpg,1\na.jpg,2\n"), [EXPR])
    assert "lines 2 and 4" in caught.value.where


@pytest.mark.parametrize(
    ("text", "head", "words", "line"),
    [
        ("", EXPR, "holds no labelled image", ""),
        ("path,label\n", EXPR, "holds no labelled image", ""),
        ("label,path\n1,a.jpg\n", EXPR, "has the header 'label,path'", "line 1"),
        ("path,valence,arousal\na.jpg,0,0\n", EXPR, "has the header", "line 1"),
        ("path,label\na.jpg,1\nb.jpg\n", EXPR, "a row of 1 fields", "line 3"),
        ("path,label\na.jpg,1\nb.jpg,9\n", EXPR, '"9" is not in label space', "line 3"),
        ("path,label\na.jpg,smile\n", EXPR, '"smile" is not in label space', "line 2"),
        ("path,valence,arousal\na.jpg,0,0\nb.jpg,0,1.5\n", VA, "no va label can have", "line 3"),
        ("path,valence,arousal\na.jpg,x,0\n", VA, "no va label can have", "line 2"),
        ("path,AU1\na.jpg,0.5\n", AU, "no au label can have", "line 2"),
        ("path,label,Label\na.jpg,1,2\n", EXPR, "a column twice: label and Label", "line 1"),
        ("path,AU_1,AU2,AU1\na.jpg,1,0,0\n", AU, "a column twice: AU_1 and AU1", "line 1"),
        ("\npath,label\n\n , \na.jpg,1\n\nb.jpg,9\n", EXPR, '"9" is not in label space', "line 7"),
        ("path,label\n\na.jpg,1\n,\nb.jpg\n", EXPR, "a row of 1 fields", "line 5"),
    ],
)
def test_garbled_files_are_refused_by_line(tmp_path: Path, text: str, head, words: str, line: str) -> None:
    with pytest.raises(AbawError, match=words) as caught:
        read_key_csv(write(tmp_path, text), [head])
    assert line in caught.value.where


def test_rows_without_content_are_passed_over(tmp_path: Path) -> None:
    table = read_key_csv(write(tmp_path, "path,label\n\na.jpg,1\r\n,\n  , \nb.jpg,2\n\n"), [EXPR])
    assert table.keys == ["a.jpg", "b.jpg"]
    assert table.labels["expr"].values[:, 0].tolist() == [1, 2]


def test_columns_without_a_name_may_repeat(tmp_path: Path) -> None:
    assert read_key_csv(write(tmp_path, "path,label,,\na.jpg,1,,\n"), [EXPR]).keys == ["a.jpg"]


def test_a_line_break_inside_a_field_counts_as_a_line(tmp_path: Path) -> None:
    with pytest.raises(AbawError) as caught:
        read_key_csv(write(tmp_path, 'path,label,note\na.jpg,1,"two\nlines"\nb.jpg,9,\n'), [EXPR])
    assert "line 4" in caught.value.where


def test_an_unknown_label_space_is_refused_whether_or_not_there_are_classes(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match='unknown label space "affectnet9"'):
        read_key_csv(write(tmp_path, "path,valence,arousal\na.jpg,0,0\n"), [VA], space="affectnet9")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AbawError, match="is missing"):
        read_key_csv(tmp_path / "no.csv", [EXPR], where="finetune.extra.csv")
