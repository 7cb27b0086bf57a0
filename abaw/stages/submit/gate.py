"""The gate between scores and a submission: what the edition's rules say of the models behind them.

Knows nothing of rows or files.
"""

from __future__ import annotations

from collections.abc import Sequence

from abaw.editions import Submission
from abaw.errors import AbawError
from abaw.rules import Finding, Rule

MAX_NAMED = 5
# How to do better, by what a finding is about.
_BETTER = {
    "labels": "fuse features of encoders that were finetuned on task {task} alone",
    "weights": "start from weights that never saw Aff-Wild2 (init_from; data.name says what `pretrain` looked at)",
    "data": "train on what the rule allows, under its own data.name",
    "undeclared": 'say what the weights have seen: trained_on = ["AffectNet"] under [encoders.<name>], init_trained_on '
    "beside init_from, then run the stages behind these scores again",
}


def require_allowed(found: Sequence[Finding], rule: Rule, submission: Submission, *, acknowledge: bool) -> None:
    """Raise AbawError for findings that refuse, unless the user takes responsibility for them."""
    refused = [one for one in found if one.refuses]
    if not refused or acknowledge:
        return
    listed = "; ".join(one.message for one in refused[:MAX_NAMED])
    more = f"; and {len(refused) - MAX_NAMED} more" if len(refused) > MAX_NAMED else ""
    better = [_BETTER[kind].format(task=submission.task) for kind in dict.fromkeys(one.kind for one in refused)]
    raise AbawError(
        f"the rules of edition {submission.edition} may not allow these models: {listed}{more}",
        where=f"task {submission.task}, rule {submission.rule}: {rule.words}",
        fix="\n".join([*better, "or pass --acknowledge: it is written all the same, and noted in its statement"]),
    )
