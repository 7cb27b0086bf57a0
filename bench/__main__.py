"""Run one benchmark or all of them, and print their records."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

NAMES = {
    "startup": "startup",
    "store": "store",
    "fusion-gain": "fusion_gain",
    "fusion": "fusion",
    "check": "check",
    "align": "align",
    "align-long": "align_long",
    "pretrain": "pretrain",
    "extract-audio": "extract_audio",
    "bf16": "bf16",
    "models": "models",
    "gpu-train": "gpu_train",
    "extract-visual": "extract_visual",
    "gpu-extract": "gpu_extract",
    "tune": "tune",
    "evaluate": "evaluate",
    "submit": "submit",
    "fuse": "fuse",
    "gpu-fuse": "gpu_fuse",
}


def main() -> int:
    """Parse the command line and run; exit status 1 when a limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=NAMES, help="which one; default all")
    parser.add_argument("--json", action="store_true", help="print the records as JSON")
    parser.add_argument("--save", action="store_true", help="also keep them in bench/results/NAME.json")
    parser.add_argument("--work", type=Path, help="folder for large files; default a temporary one")
    parser.add_argument("--real-data", type=Path, help="folder of real recordings; default ../shared/data")
    args = parser.parse_args()
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
    if args.real_data:
        from bench import clips  # needs PyAV, which not every machine has

        clips.REAL_DATA = args.real_data.resolve()
    missed = False
    for name in [args.name] if args.name else NAMES:
        records = importlib.import_module(f"bench.{NAMES[name]}").run(args.work)
        if not records:
            continue
        text = json.dumps(records if len(records) > 1 else records[0], indent=1)
        if args.save:
            (Path(__file__).parent / "results" / f"{name}.json").write_text(text + "\n")
        print(text if args.json else "\n".join(describe(record) for record in records))
        missed |= any(record["met"] is False for record in records)
    return 1 if missed else 0


def describe(record: dict[str, object]) -> str:
    """One line for a person."""
    verdict = {True: "met", False: "MISSED", None: ""}[record["met"]]  # type: ignore[index]
    limit = "" if record["limit"] is None else f"limit {record['limit']:g}, ratio {record['ratio']:.3g} {verdict}"
    return f"{record['name']:<44} {record['value']:10.4g} {record['unit']:<12} {limit}"


sys.exit(main())
