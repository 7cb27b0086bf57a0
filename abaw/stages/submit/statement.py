"""The statement beside a submission: what a paper has to say of models, data, weights and rows, in Markdown.

The same submission gives the same text. Knows nothing of how things were found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from abaw.editions import Edition, Submission
from abaw.postprocess import Post, in_words
from abaw.rules import RULES, Finding
from abaw.scored import Predictions
from abaw.stages.submit import provenance_words as words
from abaw.stages.submit.lineage import Lineage, by_name
from abaw.stages.submit.rows import Filled
from abaw.tasks import Problem


@dataclass(frozen=True)
class Facts:
    """What the statement is about.

    ``derived``: how the scores follow from those of another task, in words, "" where they are its own; ``files``:
    sha256 by name; ``sample``: name and sha256; ``places``: how rows were found, in words.
    """

    edition: Edition
    submission: Submission
    number: int
    scored: Predictions
    derived: str
    lineage: Lineage
    findings: Sequence[Finding]
    filled: Filled
    num_rows: int
    num_tracks: int
    files: Mapping[str, str]
    sample: tuple[str, str]
    places: str


def statement(facts: Facts) -> str:
    """The page."""
    parts = [
        _heading(facts),
        _section("Models", _models(facts)),
        _section("Features", _features(facts.lineage)),
        _section("Faces", _faces(facts)),
        _section("Data and labels", words.data_in_words(facts.scored.store.header.trained_on, facts.lineage.splits)),
        _section("Weights of other programs", _foreign(facts)),
        _section("From scores to decisions", _decisions(facts)),
        _section("Rows", _rows(facts)),
        _section("Rules", _rules(facts)),
        _section("Not known here", facts.lineage.missing),
        _section("Files", [f"{name}: sha256 `{sha256}`" for name, sha256 in facts.files.items()]),
    ]
    return "\n".join(part for part in parts if part)


def _section(title: str, lines: Sequence[str]) -> str:
    """A heading with its lines as a list; indented ones belong to the one before. "" where there are none."""
    if not lines:
        return ""
    body = "\n".join(f"  - {line.strip()}" if line.startswith(" ") else f"- {line}" for line in lines)
    return f"## {title}\n\n{body}\n"


def _heading(facts: Facts) -> str:
    task = facts.submission.task
    title = f"# Submission {facts.number} for task `{task}`, edition {facts.edition.name} ({facts.edition.year})"
    text = f"Scores `{facts.scored.name}`: {_method(facts)}. {facts.num_rows} rows of {facts.num_tracks} tracks."
    return f"{title}\n\n{text} Written by `abaw submit`.\n"


def _method(facts: Facts) -> str:
    """The models in a phrase."""
    lineage, settings = facts.lineage, facts.scored.settings
    stage = {name: runs[0].stage for name, runs in by_name(lineage.runs)}
    final = [name for name, own in stage.items() if own == ("fuse" if "fuse" in stage.values() else "finetune")]
    if lineage.members:
        shares = ", ".join(f"{name.removesuffix('-folds')} {weight:.3g}" for name, weight in lineage.members)
        what = "a vote of the decisions" if settings.get("combine") == "votes" else "the weighted mean of the scores"
        text = f"{what} of {len(lineage.members)} models ({shares})"
    else:
        text = f"the model {', '.join(final)}" if final else "of a run that is not on this machine"
    folds = {run.fold for run in lineage.runs.values() if run.fold is not None and run.name in final}
    if len(folds) > 1 and lineage.members:
        text += f", each trained {len(folds)} times by cross-validation and averaged"
    streams = dict.fromkeys(words.of_all_folds(name) for name in lineage.features)
    return text + (f", over the features {', '.join(streams)}" if streams else "")


# -- sections ----------------------------------------------------------------------------------------------------------
def _models(facts: Facts) -> list[str]:
    lines = []
    by_weights = {run.weights: run.name for run in facts.lineage.runs.values()}
    for name, runs in by_name(facts.lineage.runs):
        first, *rest = words.run_in_words(name, runs, by_weights)
        lines += [first, *(f"  {line}" for line in rest)]
    return lines


def _features(lineage: Lineage) -> list[str]:
    """The features of all folds of a name together: they differ by their weights alone."""
    lines: list[str] = []
    runs = {run.weights: run.name for run in lineage.runs.values()}
    for name in dict.fromkeys(map(words.of_all_folds, lineage.features)):
        stores = [one for one in lineage.features.values() if words.of_all_folds(one.name) == name]
        used = [str(one.header.settings.get("weights", "")) for one in stores]
        first, settings, terms = words.features_in_words(stores[0], of_run=used[0] in runs)
        whose = [f"run {runs[sha256]}" if sha256 in runs else f"sha256 `{sha256}`" for sha256 in used if sha256]
        lines += [f"**{name}** ({stores[0].header.kind}): {first}", f"  {settings}"]
        lines += [f"  weights: {'; '.join([*dict.fromkeys(whose), terms])}"]
    return lines


def _faces(facts: Facts) -> list[str]:
    lines = []
    for faces in facts.lineage.faces.values():
        first, *rest = words.faces_in_words(faces)
        lines += [f"**{faces.name}**: {first}", *(f"  {line}" for line in rest)]
    return lines or [words.recipe_in_words(facts.scored.store.header.recipe)]


def _foreign(facts: Facts) -> list[str]:
    """Weights of others by their hash: what they are used for, where they come from, which labels they saw."""
    lineage = facts.lineage
    seen = words.foreign_weights(facts.scored.store.header.trained_on)
    encoders = {
        str(one.header.settings.get("weights") or one.header.settings.get("sources_sha256")): one
        for one in lineage.features.values()
    }
    lines = []
    for sha256 in dict.fromkeys([*lineage.foreign, *seen]):
        store = encoders.get(sha256)
        encoder = str(store.header.settings.get("encoder")) if store else ""
        use = f"features {store.name}" if store else lineage.foreign.get(sha256, "not found in what is here")
        origin = f"; {words.terms(encoder, sha256)}" if store else ""
        lines.append(f"`{sha256}`: {use}{origin}; labels seen: {seen.get(sha256, 'not recorded')}")
    return lines


def _decisions(facts: Facts) -> list[str]:
    scored, post = facts.scored, facts.scored.post
    lines = [facts.derived] if facts.derived else []
    for head in scored.task.heads:
        treated = in_words(post, head.name, values=head.problem is Problem.REGRESSION)
        lines.append(f"`{head.name}`: {treated}; {_RULES_OF_DECISION[head.problem]}")
        if head.name in post.thresholds:
            pairs = zip(head.labels, post.thresholds[head.name], strict=True)
            lines.append("  " + ", ".join(f"{label} {threshold:g}" for label, threshold in pairs))
        if head.name in post.gain and head.name in post.interval:
            (low, high), raw, tuned = post.interval[head.name], post.raw_score, post.tuned_score
            lines.append(
                f"  score before {raw.get(head.name, 0):.4f}, after {tuned.get(head.name, 0):.4f}, "
                f"gain {post.gain[head.name]:+.4f} [{low:+.4f}, {high:+.4f}], nested over {post.nested_folds} parts"
                + ("; scores kept as they are" if head.name in post.kept_raw else "")
            )
    lines.append(f"chosen on {post.fitted_on}" if post.fitted_on else "nothing was tuned on scores")
    return lines


_RULES_OF_DECISION = {
    Problem.REGRESSION: "the value itself",
    Problem.MULTICLASS: "the class of the largest score",
    Problem.MULTILABEL: "a unit is present from its threshold on, 0.5 unless named",
}


def describe_post(post: Post) -> str:
    """Whether and on what the treatment of scores was chosen, in words."""
    if post == Post():
        return "no post.json: the scores as they are"
    changes = " changes nothing" if post.is_raw else ""
    return f"post.json{changes}, fitted on {post.fitted_on or 'unknown'}"


def _rows(facts: Facts) -> list[str]:
    name, sha256 = facts.sample
    return [
        f"rows and order: the sample {name}, sha256 `{sha256}`; {facts.places}",
        f"filled: {facts.filled.in_words()}",
    ]


def _rules(facts: Facts) -> list[str]:
    rule = facts.submission.rule
    lines = [f"rule `{rule}`: {RULES[rule].words}"]
    refused = [one.message for one in facts.findings if one.refuses]
    if refused:
        lines.append("the following may be against it, and was acknowledged by the user:")
        lines += [f"  {message}" for message in refused]
    else:
        lines.append("nothing in the recorded provenance is against it")
    lines += [f"  note: {one.message}" for one in facts.findings if not one.refuses]
    return lines


def told_findings(findings: Iterable[Finding]) -> str:
    """Findings for a summary or a message."""
    return "; ".join(one.message for one in findings)
