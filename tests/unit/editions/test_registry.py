"""The editions: which tasks they have, and what their files look like."""

import pytest

from abaw.editions import EDITIONS
from abaw.editions.registry import of_header
from abaw.tasks import TASKS

# protocol of the challenge, section 4.5
TRACKS = {
    "3": {"va", "expr", "au", "mtl"},
    "4": {"mtl", "lsd"},
    "5": {"va", "expr", "au"},
    "6": {"va", "expr", "au", "ce"},
    "7": {"mtl", "ce"},
    "8": {"va", "expr", "au", "ce"},
    "9": {"va", "ce"},
    "10": {"va", "expr", "au"},
    "11": {"mtl"},
}
RULES = {"va": "uni-task", "expr": "uni-task", "au": "uni-task", "mtl": "static", "lsd": "synthetic", "ce": "open"}
EXPRESSIONS = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
UNITS = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
ENTRIES = [entry for edition in EDITIONS.values() for entry in edition.submissions.values()]


def test_editions_have_their_tracks():
    assert {name: set(edition.submissions) for name, edition in EDITIONS.items()} == TRACKS


@pytest.mark.parametrize("edition", EDITIONS)
def test_an_entry_knows_its_task_and_its_edition(edition):
    for name, entry in EDITIONS[edition].submissions.items():
        assert (entry.task, entry.edition) == (name, edition)
        assert name in TASKS


@pytest.mark.parametrize(
    ("edition", "task", "header"),
    [
        ("3", "va", "valence,arousal"),
        ("3", "expr", EXPRESSIONS),
        ("3", "au", UNITS),
        ("10", "va", "image_location,valence,arousal"),
        ("8", "expr", f"image_location,{EXPRESSIONS}"),
        ("5", "au", f"image_location,{UNITS}"),
        ("3", "mtl", "image,valence,arousal,expression,aus"),
        ("11", "mtl", "image,valence,arousal,expression,aus"),
        ("4", "lsd", "image,expression"),
        (
            "7",
            "ce",
            "image_location,Fearfully_Surprised,Happily_Surprised,Sadly_Surprised,Disgustedly_Surprised,"
            "Angrily_Surprised,Sadly_Fearful,Sadly_Angry",
        ),
    ],
)
def test_headers_are_the_organisers(edition, task, header):
    assert EDITIONS[edition].submissions[task].header == header


def test_only_single_tasks_of_edition_3_have_a_file_per_video():
    layouts = {(entry.edition, entry.task) for entry in ENTRIES if entry.layout == "videos"}
    assert layouts == {("3", "va"), ("3", "expr"), ("3", "au")}


def test_only_synthetic_data_names_images_alone():
    assert {entry.task for entry in ENTRIES if entry.keyed} == {"lsd"}


def test_models_are_held_to_the_rule_of_their_track():
    for entry in ENTRIES:
        multi = entry.edition == "9" and entry.task == "va"  # the one year in which it might be
        assert entry.rule == ("multi-task" if multi else RULES[entry.task])


def test_a_header_tells_the_task_and_every_edition_that_has_it():
    found = of_header(' Image_Location,"Valence", arousal,,\n')
    assert [(entry.task, entry.edition) for entry in found] == [("va", name) for name in ("5", "6", "8", "9", "10")]


def test_an_unknown_header_tells_nothing():
    assert of_header("image_location,valence") == []
