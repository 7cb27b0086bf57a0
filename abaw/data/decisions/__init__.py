"""Files of decisions that were made elsewhere: the challenge's submission files, and csv tables."""

from __future__ import annotations

from abaw.data.decisions.csv_files import read_csv_decisions
from abaw.data.decisions.files import read_decisions
from abaw.data.decisions.rows import FileDecisions

__all__ = ["FileDecisions", "read_csv_decisions", "read_decisions"]
