"""Sound on the frame clock: the one rule that puts tokens of an audio encoder onto video frames.

Token k of an encoder has its centre at ``offset_s + k * hop_s`` seconds of the container's clock. Frame i covers
``[time_i, time_{i+1})``; the last frame ends one median step after it begins. Knows numpy only: no files, no
encoders, no reasons.

Shapes: ``T`` frames of a track, ``N`` tokens, ``D`` feature dim.
"""

from __future__ import annotations

import numpy as np

# Container clocks tick in microseconds or coarser: a token centre this close below a frame's start belongs to it.
TOLERANCE_S = 1e-6
# Length given to the only frame of a one-frame video, where no step can be measured.
SINGLE_FRAME_S = 0.04


def frame_edges(times: np.ndarray) -> np.ndarray:
    """Starts of all frames and the end of the last one, float64 ``[T+1]`` in seconds (``[0]`` for T = 0).

    ``times`` must be strictly increasing; ValueError otherwise.
    """
    times = np.asarray(times, dtype=np.float64)
    if times.size == 0:
        return np.zeros(0)
    steps = np.diff(times)
    if not np.all(steps > 0):
        message = "frame times are not strictly increasing"
        raise ValueError(message)
    last = float(np.median(steps)) if steps.size else SINGLE_FRAME_S
    return np.append(times, times[-1] + last)


def token_spans(times: np.ndarray, *, num_tokens: int, offset_s: float, hop_s: float) -> np.ndarray:
    """Half-open token range of every frame, int64 ``[T, 2]``: never empty where there is a token at all.

    A frame without a token centre inside gets the single token nearest to the frame's middle (of two at the same
    distance the earlier one), so the ends are held where the tokens do not reach.
    """
    edges = frame_edges(times)
    if edges.size == 0 or num_tokens == 0:
        return np.zeros((max(edges.size - 1, 0), 2), dtype=np.int64)
    first = np.ceil((edges - offset_s - TOLERANCE_S) / hop_s).astype(np.int64)
    first = np.clip(first, 0, num_tokens)
    spans = np.stack([first[:-1], first[1:]], axis=1)  # [T, 2]
    middle = (edges[:-1] + edges[1:]) / 2
    nearest = np.ceil((middle - offset_s) / hop_s - 0.5 - TOLERANCE_S).astype(np.int64)
    nearest = np.clip(nearest, 0, num_tokens - 1)
    empty = spans[:, 0] >= spans[:, 1]
    spans[empty] = np.stack([nearest[empty], nearest[empty] + 1], axis=1)
    return spans


def tokens_to_frames(tokens: np.ndarray, times: np.ndarray, *, offset_s: float, hop_s: float) -> np.ndarray:
    """Mean of the tokens of every frame, float32 ``[T, D]`` from ``[N, D]``; zeros where there is no token at all."""
    tokens = np.asarray(tokens)
    sums = FrameSums(times, num_tokens=len(tokens), dim=tokens.shape[1], offset_s=offset_s, hop_s=hop_s)
    sums.add(0, tokens)
    return sums.features()


class FrameSums:
    """`tokens_to_frames` of tokens that come in parts, in any order: the tokens are never held whole.

    Sums are kept in float64, which adds float32 tokens exactly unless some are 2^28 times others, so the result does
    not depend on how the tokens are cut. What stays in memory is the result, of ``dtype`` (means are rounded to float32
    first), and one sum for each frame that still waits for tokens.
    """

    def __init__(
        self,
        times: np.ndarray,
        *,
        num_tokens: int,
        dim: int,
        offset_s: float,
        hop_s: float,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        self._spans = token_spans(times, num_tokens=num_tokens, offset_s=offset_s, hop_s=hop_s)
        self._counts = self._spans[:, 1] - self._spans[:, 0]
        self._missing = self._counts.copy()
        self._features = np.zeros((len(self._spans), dim), dtype=dtype)
        self._waiting: dict[int, np.ndarray] = {}  # frame -> float64 [D]

    def add(self, first_token: int, tokens: np.ndarray) -> None:
        """Take in tokens ``first_token``, ``first_token + 1`` ..., ``[n, D]``.

        Raises ValueError where a frame has got more tokens than it has.
        """
        tokens = np.asarray(tokens)
        if len(tokens) == 0:
            return
        stop = first_token + len(tokens)
        touched = np.flatnonzero((self._spans[:, 0] < stop) & (self._spans[:, 1] > first_token))
        if touched.size == 0:
            return
        parts = np.clip(self._spans[touched], first_token, stop) - first_token  # [n, 2]
        counts = parts[:, 1] - parts[:, 0]
        self._missing[touched] -= counts
        if np.any(self._missing[touched] < 0):
            message = "a token was added twice"
            raise ValueError(message)
        sums = _sums(tokens, parts[:, 0], counts)
        for row in np.flatnonzero(counts < self._counts[touched]).tolist():
            frame = int(touched[row])
            sums[row] += self._waiting.pop(frame, 0.0)
            if self._missing[frame]:
                self._waiting[frame] = sums[row].copy()
        whole = self._missing[touched] == 0
        means = sums[whole] / self._counts[touched[whole], None]
        self._features[touched[whole]] = means.astype(np.float32)

    def features(self) -> np.ndarray:
        """Mean of the tokens of every frame, ``[T, D]``; zeros where there is no token at all.

        Raises ValueError while tokens are missing.
        """
        if np.any(self._missing):
            message = f"{np.count_nonzero(self._missing)} frames lack tokens"
            raise ValueError(message)
        return self._features


def _sums(tokens: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums of runs of one token or more, float64 ``[n, D]``; twenty times as fast as ``np.add.reduceat``."""
    sums = tokens[starts].astype(np.float64)
    for step in range(1, int(counts.max())):
        more = np.flatnonzero(counts > step)
        sums[more] += tokens[starts[more] + step]
    return sums


def frames_outside(times: np.ndarray, *, start_s: float, stop_s: float) -> np.ndarray:
    """bool ``[T]``: True for frames that share no instant with the sound ``[start_s, stop_s)``."""
    edges = frame_edges(times)
    if edges.size == 0:
        return np.zeros(0, dtype=bool)
    return (edges[:-1] >= stop_s - TOLERANCE_S) | (edges[1:] <= start_s + TOLERANCE_S)
