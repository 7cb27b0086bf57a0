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
    spans = token_spans(times, num_tokens=len(tokens), offset_s=offset_s, hop_s=hop_s)
    if len(tokens) == 0 or len(spans) == 0:
        return np.zeros((len(spans), tokens.shape[1]), dtype=np.float32)
    # A zero row behind the last token lets `reduceat` take len(tokens) as a stop index.
    padded = np.concatenate([tokens, np.zeros_like(tokens[:1])]).astype(np.float64)
    sums = np.add.reduceat(padded, spans.reshape(-1), axis=0)[::2]  # [T, D]
    return (sums / (spans[:, 1] - spans[:, 0])[:, None]).astype(np.float32)


def frames_outside(times: np.ndarray, *, start_s: float, stop_s: float) -> np.ndarray:
    """bool ``[T]``: True for frames that share no instant with the sound ``[start_s, stop_s)``."""
    edges = frame_edges(times)
    if edges.size == 0:
        return np.zeros(0, dtype=bool)
    return (edges[:-1] >= stop_s - TOLERANCE_S) | (edges[1:] <= start_s + TOLERANCE_S)
