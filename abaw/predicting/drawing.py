"""What is drawn onto a picture: boxes, what the models say, and a trace of valence and arousal below it.

Works on RGB arrays. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from abaw.predicting.people import Person
from abaw.predicting.words import SHORT_NOTICE
from abaw.tasks import Problem

FONT = cv2.FONT_HERSHEY_SIMPLEX
COLOURS = ((60, 220, 160), (230, 159, 0), (86, 180, 233), (213, 94, 0), (204, 121, 167), (240, 228, 66))
VALENCE, AROUSAL = (86, 180, 233), (230, 159, 0)
PAPER, INK, GRID = (24, 24, 24), (235, 235, 235), (90, 90, 90)
TRACE_S = 10.0  # seconds that the trace shows
MAX_UNITS = 6  # that are named beside a face


@dataclass(frozen=True)
class Shown:
    """What is known of one person in the rows that show the face: rows int64 [n] increasing, box [n, 4], texts.

    ``classes`` int8 [n], ``share`` float32 [n] its probability; ``units`` bool [n, L]; ``values`` float32 [n, 2];
    None where no run gives them.
    """

    number: int
    rows: np.ndarray
    time: np.ndarray
    box: np.ndarray
    class_names: tuple[str, ...] = ()
    classes: np.ndarray | None = None
    share: np.ndarray | None = None
    unit_names: tuple[str, ...] = ()
    units: np.ndarray | None = None
    values: np.ndarray | None = None

    @classmethod
    def of(cls, person: Person) -> Shown:
        """Only the rows that show the face are kept: of many people, each is seen for a while."""
        rows = np.flatnonzero(person.valid)
        told: dict[str, object] = {}
        for one in person.heads:
            if one.head.problem is Problem.MULTICLASS and "classes" not in told:
                classes = one.decisions[rows, 0]
                share = one.scores[rows, classes]
                told |= {"class_names": one.head.labels, "classes": classes, "share": share}
            elif one.head.problem is Problem.MULTILABEL and "units" not in told:
                told |= {"unit_names": one.head.labels, "units": one.decisions[rows].astype(bool)}
            elif one.head.problem is Problem.REGRESSION and "values" not in told:
                told["values"] = one.decisions[rows]
        return cls(person.number, rows, person.time[rows], person.box[rows], **told)  # type: ignore[arg-type]

    def place(self, row: int) -> int | None:
        """Where a row of the video is among those here."""
        place = int(np.searchsorted(self.rows, row))
        return place if place < len(self.rows) and self.rows[place] == row else None

    def lines(self, place: int) -> list[str]:
        """What stands beside the face."""
        found = []
        if self.classes is not None and self.share is not None:
            found.append(f"{self.class_names[int(self.classes[place])]} {self.share[place]:.2f}")
        if self.values is not None:
            found.append(f"V {self.values[place, 0]:+.2f}  A {self.values[place, 1]:+.2f}")
        if self.units is not None:
            names = [self.unit_names[number] for number in np.flatnonzero(self.units[place])]
            more = f" +{len(names) - MAX_UNITS}" if len(names) > MAX_UNITS else ""
            found.append(" ".join(names[:MAX_UNITS]) + more if names else "no unit")
        return found


class Drawing:
    """Draws on pictures of ``width`` x ``height`` pixels; ``size`` is that of what comes out, both even."""

    def __init__(self, people: Sequence[Shown], width: int, height: int) -> None:
        self._people = people
        self.width, self.height = width + width % 2, height + height % 2
        self._unit = max(self.height, 200) / 720
        has_values = any(person.values is not None for person in people)
        panel = round(self.height * (0.22 if has_values else 0.06))
        self._panel = max(panel, 16) + max(panel, 16) % 2
        self._has_trace = has_values
        self.size = (self.width, self.height + self._panel)

    def draw(
        self, image: np.ndarray, row: int, time_s: float, *, scale: tuple[float, float] = (1.0, 1.0)
    ) -> np.ndarray:
        """A picture uint8 [H, W, 3] with everything that is known of its row, and the panel below.

        ``scale``: how much wider and higher it is than the picture that the boxes are of.
        """
        canvas = np.empty((self.size[1], self.width, 3), np.uint8)
        canvas[:] = PAPER
        height, width = min(image.shape[0], self.height), min(image.shape[1], self.width)
        canvas[:height, :width] = image[:height, :width]
        for person in self._people:
            place = person.place(row)
            if place is not None:
                self._person(canvas, person, place, scale)
        self._below(canvas, time_s)
        return canvas

    def _person(self, canvas: np.ndarray, person: Shown, place: int, scale: tuple[float, float]) -> None:
        colour = COLOURS[(person.number - 1) % len(COLOURS)]
        x0, y0, x1, y1 = (round(float(value)) for value in person.box[place] * np.tile(scale, 2))
        thick = max(1, round(2 * self._unit))
        cv2.rectangle(canvas, (x0, y0), (x1, min(y1, self.height - 1)), colour, thick, cv2.LINE_AA)
        texts = person.lines(place)
        if len(self._people) > 1:
            texts.insert(0, f"person {person.number}")
        step = max(9, round(24 * self._unit))
        top = y0 - step * len(texts) - thick
        first = top if top >= 0 else y1 + thick  # above the face, or below where there is no room
        first = max(0, min(first, self.height - step * len(texts)))
        for number, text in enumerate(texts):
            self._text(canvas, text, (x0, first + step * (number + 1) - step // 4), colour, 0.8)

    def _text(
        self, canvas: np.ndarray, text: str, at: tuple[int, int], colour: tuple[int, int, int], size: float
    ) -> None:
        """Letters with a dark rim, legible on anything, kept inside the picture."""
        scale = max(0.35, size * self._unit)
        (width, _), _ = cv2.getTextSize(text, FONT, scale, 1)
        at = (max(0, min(at[0], self.width - width)), at[1])
        thick = max(1, round(self._unit))
        cv2.putText(canvas, text, at, FONT, scale, (0, 0, 0), thick + 2, cv2.LINE_AA)
        cv2.putText(canvas, text, at, FONT, scale, colour, thick, cv2.LINE_AA)

    # -- below the picture -------------------------------------------------------------------------------------------
    def _below(self, canvas: np.ndarray, time_s: float) -> None:
        step = max(9, round(20 * self._unit))
        bottom = self.size[1] - max(3, step // 4)
        self._text(canvas, f"{time_s:.1f} s   {SHORT_NOTICE}", (4, bottom), INK, 0.5)
        if not self._has_trace:
            return
        top, floor = self.height + 2, self.size[1] - step - 4
        middle = (top + floor) // 2
        cv2.line(canvas, (0, middle), (self.width, middle), GRID, 1)
        person = next(one for one in self._people if one.values is not None)
        stop = int(np.searchsorted(person.time, time_s, side="right"))
        start = int(np.searchsorted(person.time, time_s - TRACE_S))
        x = (1 - (time_s - person.time[start:stop]) / TRACE_S) * (self.width - 1)
        assert person.values is not None
        for column, (name, colour) in enumerate((("valence", VALENCE), ("arousal", AROUSAL))):
            y = middle - person.values[start:stop, column] * (floor - top) / 2
            for part in _unbroken(person.rows[start:stop]):
                points = np.stack([x[part], y[part]], axis=1).round().astype(np.int32)
                cv2.polylines(canvas, [points], isClosed=False, color=colour, thickness=1, lineType=cv2.LINE_AA)
            self._text(canvas, name, (4 + column * 6 * step, top + step), colour, 0.5)


def _unbroken(rows: np.ndarray) -> list[np.ndarray]:
    """Places of rows that follow each other, apart where the face is not seen."""
    places = np.arange(len(rows))
    return [part for part in np.split(places, np.flatnonzero(np.diff(rows) > 1) + 1) if len(part)]
