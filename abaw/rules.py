"""What an edition's rules allow behind a submission, judged by provenance records.

Add a rule by adding an entry of RULES. Sources: the rules on the challenge's pages as they were found stated (a
uni-task track takes its own labels of Aff-Wild2, other data, and models that never saw Aff-Wild2; the multi-task track
takes s-Aff-Wild2 alone). Knows nothing of editions, stores or models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from abaw.provenance import UNDECLARED
from abaw.tasks import TASKS

Kind = Literal["labels", "weights", "data", "undeclared", "note"]
# Names of the recordings or of the challenge that they are of.
AFF_WILD2 = ("affwild", "abaw")
# The static images are told apart by an s that stands alone: "frames-Aff-Wild2" is the recordings.
STATIC = re.compile(r"static|(?<![^\W_])s[\W_]*aff[\W_]*wild", re.IGNORECASE)
NO_LABELS = "none"
# Labels that exist for one data set only, whatever their user called it.
STATIC_LABELS, SYNTHETIC_LABELS = "mtl", "lsd"


class Finding(NamedTuple):
    """Something that a rule says of a record: in words, and what it is about; a "note" forbids nothing."""

    message: str
    kind: Kind

    @property
    def refuses(self) -> bool:
        """Whether the rule forbids it."""
        return self.kind != "note"


@dataclass(frozen=True)
class Seen:
    """What one record tells: names of data sets, whose labels, and the weights where they are of others."""

    datasets: tuple[str, ...]
    labels: str
    edition: str
    weights: str

    @property
    def is_undeclared(self) -> bool:
        """Nobody said which labels the weights have seen."""
        return self.labels == UNDECLARED or (self.datasets == (UNDECLARED,) and self.labels != NO_LABELS)

    @property
    def aff_wild2(self) -> list[str]:
        """Those of the data sets that are Aff-Wild2 in any form."""
        return [name for name in self.datasets if any(word in _plain(name) for word in AFF_WILD2)]

    @property
    def is_static(self) -> bool:
        """Whether all it has seen of Aff-Wild2 is s-Aff-Wild2."""
        named = all(STATIC.search(name) for name in self.aff_wild2)
        return named or self.labels == STATIC_LABELS

    def __str__(self) -> str:
        edition = f" (edition {self.edition})" if self.edition not in (UNDECLARED, "none", "external", "") else ""
        return f"{', '.join(self.aff_wild2 or self.datasets)}{edition}"

    @property
    def whose(self) -> str:
        """The weights, as a sentence begins."""
        return f"weights {self.weights[:12]}" if self.weights else "weights"


@dataclass(frozen=True)
class Rule:
    """What an edition allows, ``words`` for people. ``judge`` says what is wrong with a record of Aff-Wild2, given the
    task; undeclared weights refuse, unless it is ``open``.
    """

    words: str
    judge: Callable[[Seen, str], Finding | None]
    open: bool = False


def findings(records: Iterable[Mapping[str, Any]], rule: Rule, task: str) -> list[Finding]:
    """What ``rule`` says of the ``trained_on`` records behind scores of ``task``, each thing once, refusals first.

    No record at all is as good as an undeclared one: scores do not come from nothing.
    """
    seen = [_seen(record) for record in records]
    judged = [_judge(one, rule, task) for one in seen]
    if not seen:
        judged = [_undeclared("nothing is recorded of what the scores come from", rule)]
    found = dict.fromkeys(one for one in judged if one is not None)
    return sorted(found, key=lambda one: (not one.refuses, one.kind, one.message))


def _judge(seen: Seen, rule: Rule, task: str) -> Finding | None:
    if seen.is_undeclared:
        return _undeclared(f"nobody said which labels {seen.whose} of another program have seen", rule)
    if seen.datasets == (UNDECLARED,):
        return Finding(f"{seen.whose} saw no labels, as their user says; of which pictures is not recorded", "note")
    return rule.judge(seen, task) if seen.aff_wild2 else None


def _undeclared(message: str, rule: Rule) -> Finding:
    return Finding(message, "note" if rule.open else "undeclared")


def _seen(record: Mapping[str, Any]) -> Seen:
    """A record, where what is missing in an edited one counts as undeclared."""
    dataset, labels = str(record.get("dataset") or UNDECLARED), str(record.get("labels") or UNDECLARED)
    # a data set's name may hold a comma: both the parts and the whole may be meant, and the whole adds nothing here
    names = tuple(name.strip() for name in dataset.split(",") if name.strip())
    return Seen(names, labels, str(record.get("edition", "")), str(record.get("weights_sha256", "")))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _same_labels(labels: str, task: str) -> bool:
    """Labels of the task itself; the smaller sets of early editions ("expr7") are of the same kind."""
    own = {task, TASKS[task].train_on or task}
    return labels in own or (labels in TASKS and labels.rstrip("0123456789") in own)


# -- the rules ---------------------------------------------------------------------------------------------------------
def _foreign_weights(seen: Seen) -> Finding | None:
    """Weights that saw Aff-Wild2 before: without labels, or of another program."""
    if seen.labels == NO_LABELS:
        return Finding(f"weights were pretrained on pictures of {seen}, without labels", "weights")
    if seen.labels == "declared":
        return Finding(f"{seen.whose} of another program were trained on {seen}, as their user says", "weights")
    return None


def _uni_task(seen: Seen, task: str) -> Finding | None:
    found = _foreign_weights(seen)
    if found is None and not _same_labels(seen.labels, task):
        found = Finding(f"labels of task {seen.labels} of {seen} were used", "labels")
    return found


def _multi_task(seen: Seen, _task: str) -> Finding | None:
    return _foreign_weights(seen)


def _static(seen: Seen, _task: str) -> Finding | None:
    if seen.is_static:
        return None
    what = "pictures" if seen.labels == NO_LABELS else f"labels ({seen.labels})"
    return Finding(f"{what} of {seen} were used, which is not s-Aff-Wild2 by its name", "data")


def _synthetic(seen: Seen, _task: str) -> Finding | None:
    if seen.labels == SYNTHETIC_LABELS:
        return None
    what = "pictures" if seen.labels == NO_LABELS else f"labels ({seen.labels})"
    return Finding(f"{what} of {seen} were used", "data")


def _open(_seen: Seen, _task: str) -> Finding | None:
    return None


RULES: dict[str, Rule] = {
    "uni-task": Rule(
        "of Aff-Wild2 only the task's own labels; no weights that saw Aff-Wild2 before; other data sets are free",
        _uni_task,
    ),
    "multi-task": Rule(
        "labels of all tasks of Aff-Wild2; no weights that saw Aff-Wild2 before; other data sets are free",
        _multi_task,
    ),
    "static": Rule("of Aff-Wild2 only the static images s-Aff-Wild2; other data sets are free", _static),
    "synthetic": Rule("no Aff-Wild2 in any form; the challenge's synthetic images and other data sets", _synthetic),
    "open": Rule("nothing is forbidden: the test set comes without training data", _open, open=True),
}
