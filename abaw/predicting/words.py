"""What is said with every prediction: what the models were trained on, and what their output must not be used for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from abaw.predicting.trained import Choice
from abaw.provenance import combine_trained_on
from abaw.stages.submit.provenance_words import data_in_words, foreign_weights

NOTICE = (
    "These are estimates of visible expression by a model that errs, for research. They do not say what a person "
    "feels, thinks or is. They must not be used to judge people, e.g. in hiring, school, policing, credit or medicine; "
    "in places the law forbids to infer emotions at work and in education. Faces are personal data: have the consent "
    "of those who are seen."
)
SHORT_NOTICE = "estimates for research; not to be used to judge people"
UNCALIBRATED = "Probabilities are not calibrated: 0.8 does not mean right in eight cases of ten."


def trained_on(choice: Choice) -> list[str]:
    """Sentences on the labels and the foreign weights behind a choice."""
    records = records_of(choice)
    splits = [one.inputs["split"] for _, one in choice.parts if isinstance(one.inputs.get("split"), dict)]
    names = {str(split["sha256"]): f"split {split['name']}" for split in splits}
    lines = [line.replace("`", "") for line in data_in_words(records, names)]
    lines += [
        f"Weights of another program (sha256 {sha256[:16]}...), trained on: {seen}."
        for sha256, seen in foreign_weights(records).items()
    ]
    return lines or ["Nothing is recorded of what it was trained on."]


def records_of(choice: Choice) -> list[dict[str, Any]]:
    """The records of all models of a choice."""
    return combine_trained_on(one.header["trained_on"] for _, one in choice.parts)


def about(choices: Sequence[Choice], *, all_faces: bool) -> str:
    """The text that is laid beside the results."""
    parts = ["What these files are", "", NOTICE, "", UNCALIBRATED, "", "Models"]
    for choice in choices:
        parts += ["", f"{choice.task.name}: {choice.in_words()}"]
        parts += [f"  weights of {one.name}, sha256 {one.sha256}" for _, one in choice.parts]
        post = "none" if choice.post.is_raw else f"as in post.json, chosen on {choice.post.fitted_on or 'unknown'}"
        parts += [f"  post-processing: {post}"]
        parts += [f"  trained on: {line}" for line in trained_on(choice)]
    rows = "every face that is found, frame by frame" if all_faces else "every frame, for the person seen most"
    parts += ["", "Columns of the tables", "", f"One row for {rows}."]
    parts += [f"{name}: {meaning}" for name, meaning in COLUMNS]
    parts += ["", "The folder work holds crops of faces, features and scores, so that a second run is quick."]
    parts += ["They are personal data; delete the folder when it is not needed any more."]
    return "\n".join(parts) + "\n"


COLUMNS = (
    ("video, person, frame", "the file; the person, from 1; the frame, from 0"),
    ("time", "seconds on the clock of the file"),
    ("x0, y0, x1, y1", "box of the face in pixels, left, top, right, bottom; empty without a face"),
    ("valid, reason", "1 where the face is seen; else why not: no_face, low_score, decode_error, other_person"),
    (
        "AU1, ...",
        "probability of an action unit as the model gave it; AU1_present: whether it counts as present (0, 1)",
    ),
    ("expr_Neutral, ...", "probability of an expression; expr: the one decided on"),
    ("valence, arousal", "-1 to 1"),
    ("an empty cell", "no model had anything to look at; with sound there may be values without a face"),
)
