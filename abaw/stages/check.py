"""`abaw check`: do frames, labels, crops and sample rows of every track agree? Needs no torch.

docs/check.md explains the columns, the verdicts and what to do about them.
"""

from __future__ import annotations

import csv as csv_module
import io
from collections import Counter
from typing import Any

from abaw.config import Config
from abaw.console import Summary
from abaw.data.ledger import OK, TOLERABLE, WRONG, Entry, Ledger
from abaw.errors import AbawError, ExitCode

UNKNOWN = "-"
MARKS = {OK: " ", TOLERABLE: "~", WRONG: "!"}


def run(cfg: Config, *, csv: bool = False) -> Summary:
    """Compare the faces store with labels, sample files and crops; with ``csv``, a line per track and nothing else.

    Raises AbawError where there is no faces store or no track at all. Wrong tracks give exit code 4.
    """
    ledger = Ledger(cfg)
    entries = ledger.entries()
    if not entries:
        raise AbawError(
            f"there is nothing to check: {ledger.store.path} holds no track, and no file names one",
            where=str(ledger.store.path),
            fix="run `abaw align` with this configuration first",
        )
    records = [_record(entry) for entry in entries]
    totals = _totals(entries)
    data = {"store": str(ledger.store.path), "totals": totals, "tracks": records}
    code = ExitCode.DATA if totals[WRONG] else ExitCode.OK
    if csv:
        return Summary("check", [], data=data, text=_as_csv(records, ledger), code=code)
    return Summary("check", _lines(ledger, entries, totals), data=data, text=_as_text(entries, ledger), code=code)


def _record(entry: Entry) -> dict[str, Any]:
    """One track for a machine; null where a value is not known."""
    share = entry.with_face / entry.frames if entry.frames and entry.with_face is not None else None
    return {
        "track": entry.track_id,
        "verdict": entry.verdict,
        "reason": entry.reason,
        "remarks": entry.remarks,
        "frames": entry.frames,
        "header_frames": entry.header_frames,
        "labels": entry.labels,
        "crops": entry.crops.count if entry.crops else None,
        "highest_crop": entry.crops.highest if entry.crops else None,
        "samples": {task: {"highest": named.highest, "rows": named.count} for task, named in entry.samples.items()},
        "with_face": entry.with_face,
        "share_with_face": None if share is None else round(share, 4),
        "identity_switches": entry.switches,
        "sound": entry.sound,
        "sound_s": None if entry.sound_s is None else round(entry.sound_s, 3),
        "video_s": None if entry.video_s is None else round(entry.video_s, 3),
        "decode_errors": entry.decode_errors,
    }


def _totals(entries: list[Entry]) -> dict[str, int]:
    verdicts = Counter(entry.verdict for entry in entries)
    return {
        "tracks": len(entries),
        **{verdict: verdicts[verdict] for verdict in MARKS},
        "frames": sum(entry.frames or 0 for entry in entries),
        "with_face": sum(entry.with_face or 0 for entry in entries),
        "label_rows": sum(sum(entry.labels.values()) for entry in entries),
        "identity_switches": sum(entry.switches or 0 for entry in entries),
    }


def _as_csv(records: list[dict[str, Any]], ledger: Ledger) -> str:
    """One flat line per track: labels and samples have a column per task, remarks are joined by "; "."""
    rows = []
    for record in records:
        flat = {key: value for key, value in record.items() if key not in ("labels", "samples")}
        flat["remarks"] = "; ".join(record["remarks"])
        flat |= {f"labels_{task}": record["labels"].get(task) for task in ledger.label_tasks}
        for task in ledger.sample_tasks:
            named = record["samples"].get(task, {})
            flat |= {f"sample_{task}": named.get("highest"), f"sample_{task}_rows": named.get("rows")}
        rows.append(flat)
    out = io.StringIO()
    writer = csv_module.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().removesuffix("\n")


def _as_text(entries: list[Entry], ledger: Ledger) -> str:
    """The table, and below it the tracks that are wrong."""
    heads = ["", "track", "verdict", "frames", "header", *ledger.label_tasks, "crops"]
    heads += [f"sample {task}" for task in ledger.sample_tasks]
    heads += ["faces", "switches", "sound", "complaints", "remarks"]
    rows = [_row(entry, ledger) for entry in entries]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in [heads, *rows]:
        cells = [
            f"{cell:<{width}}" if index in (0, 1, 2, len(row) - 1) else f"{cell:>{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    wrong = [entry for entry in entries if entry.verdict == WRONG]
    if wrong:
        lines += ["", *(f"{MARKS[WRONG]}  {entry.track_id}: {entry.reason}" for entry in wrong)]
    return "\n".join([*lines, ""])


def _row(entry: Entry, ledger: Ledger) -> list[str]:
    """Cells of one track; what is merely tolerable is said at the end of the line, with the remarks."""
    share = UNKNOWN if not entry.frames else f"{(entry.with_face or 0) / entry.frames:.1%}"
    crops = UNKNOWN if entry.crops is None else _named(entry.crops.highest, entry.crops.count)
    samples = [entry.samples.get(task) for task in ledger.sample_tasks]
    return [
        MARKS[entry.verdict],
        entry.track_id,
        entry.verdict,
        _number(entry.frames),
        _number(entry.header_frames),
        *(_number(entry.labels.get(task)) for task in ledger.label_tasks),
        crops,
        *(UNKNOWN if named is None else _named(named.highest, named.count) for named in samples),
        share,
        _number(entry.switches),
        _sound(entry),
        _number(entry.decode_errors),
        "; ".join([*entry.tolerable, *entry.remarks]),
    ]


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _named(highest: int, count: int) -> str:
    """The last number, preceded by how many are there where some are not: "98/100"."""
    return str(highest) if count == highest else f"{count}/{highest}"


def _sound(entry: Entry) -> str:
    if entry.sound is None:
        return UNKNOWN
    if not entry.sound:
        return "none"
    if entry.sound_s is None or entry.video_s is None:
        return "yes"
    return f"{entry.sound_s:.1f} of {entry.video_s:.1f} s"


def _lines(ledger: Ledger, entries: list[Entry], totals: dict[str, int]) -> list[tuple[str, str]]:
    counts = ", ".join(f"{totals[verdict]} {verdict}" for verdict in MARKS)
    share = totals["with_face"] / totals["frames"] if totals["frames"] else 0.0
    lines = [
        ("tracks", f"{totals['tracks']}: {counts}"),
        ("frames", f"{totals['frames']}, {share:.1%} with a face"),
    ]
    for task in ledger.label_tasks:
        rows = [entry.labels[task] for entry in entries if task in entry.labels]
        lines.append((f"{task} labels", f"{sum(rows)} rows of {len(rows)} tracks"))
    for task in ledger.sample_tasks:
        counted = [entry.samples[task].count for entry in entries if task in entry.samples]
        lines.append((f"{task} sample", f"{sum(counted)} rows of {len(counted)} tracks"))
    lines.append(("store", str(ledger.store.path)))
    if totals[WRONG]:
        lines.append(("next", "docs/check.md says what to do about each finding"))
    return lines
