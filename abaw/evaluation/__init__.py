"""Decisions held against labels: official metrics, how sure they are, and which of two predictions is better.

Everything is computed from a few sums of each recording (`pooled`), read in one pass with one track in memory at a
time. Knows nothing of commands or of how results are shown.
"""

from __future__ import annotations

from abaw.evaluation.comparison import Comparison, Difference, compare
from abaw.evaluation.measuring import evaluate_tracks
from abaw.evaluation.results import COUNTINGS, Evaluation, RowCounts

__all__ = ["COUNTINGS", "Comparison", "Difference", "Evaluation", "RowCounts", "compare", "evaluate_tracks"]
