"""The official metrics, on plain numpy arrays.

Sources: Kollias et al., the ABAW challenge's published definitions. Edge rules: F1 of a class absent from truth and
prediction counts 0; CCC of a constant is 0; variances are population variances. Knows nothing of files or tasks.
"""

from __future__ import annotations

import numpy as np


def ccc(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Concordance correlation coefficient (Lin 1989) of two series [N]; 0 where it is undefined.

    2 cov(x, y) / (var x + var y + (mean x - mean y)^2) with population moments, in float64.
    """
    x, y = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    if len(x) == 0:
        return 0.0
    mean_x, mean_y = x.mean(), y.mean()
    covariance = ((x - mean_x) * (y - mean_y)).mean()
    variance_x, variance_y = x.var(), y.var()
    if variance_x == 0 or variance_y == 0:
        return 0.0
    return float(2 * covariance / (variance_x + variance_y + (mean_x - mean_y) ** 2))


def f1_binary(prediction: np.ndarray, truth: np.ndarray) -> float:
    """F1 of the positive class of two boolean series [N]: 2 TP / (2 TP + FP + FN); 0 where it is undefined."""
    x, y = np.asarray(prediction, bool), np.asarray(truth, bool)
    hits = int((x & y).sum())
    total = int(x.sum()) + int(y.sum())
    return 2 * hits / total if total else 0.0


def f1_per_class(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """F1 of each class, float64 [num_classes], of two series [N] of class indices; 0 where it is undefined."""
    table = confusion(prediction, truth, num_classes)
    hits = np.diag(table).astype(np.float64)
    total = (table.sum(axis=0) + table.sum(axis=1)).astype(np.float64)
    return np.divide(2 * hits, total, out=np.zeros(num_classes), where=total > 0)


def confusion(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts int64 [truth, prediction] of two series [N] of class indices."""
    x, y = np.asarray(prediction, np.int64), np.asarray(truth, np.int64)
    flat = np.bincount(y * num_classes + x, minlength=num_classes * num_classes)
    return flat.reshape(num_classes, num_classes)
