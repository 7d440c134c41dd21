"""What a classifier takes for what: the confusion matrix, the scores that are read off it, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sublayer.files import replacing


@dataclass(frozen=True)
class Confusion:
    """matrix: int64 [C, C], texts by their true label (row) and by the label that was found (column)."""

    matrix: NDArray[np.int64]

    @property
    def count(self) -> int:
        """How many texts there are."""
        return int(self.matrix.sum())

    @property
    def accuracy(self) -> float:
        """The part of the texts whose label was found."""
        return float(np.trace(self.matrix)) / self.count

    @property
    def f1(self) -> NDArray[np.float64]:
        """2 P R / (P + R) for each label: 2 right / (given + have); 0 where there is neither. Shape: [C]."""
        return 2 * np.diag(self.matrix) / np.maximum(self._occurs, 1)

    @property
    def macro_f1(self) -> float:
        """The mean of F1 over the labels that occur, in truth or in what was found; each counts the same."""
        return float(self.f1[self._occurs > 0].mean())

    @property
    def _occurs(self) -> NDArray[np.int64]:
        """How often each label was given or is there. Shape: [C]."""
        return self.matrix.sum(axis=0) + self.matrix.sum(axis=1)


def draw_confusion(confusion: Confusion, labels: Sequence[str], picture: Path, title: str) -> None:
    """The matrix as a PNG: shades by the part of each true label, numbers of texts in the cells, F1 beside the rows."""
    from matplotlib.figure import Figure

    matrix = confusion.matrix
    size = max(4.0, 1.6 + 0.7 * len(labels))
    figure: Any = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    shades = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*matrix.shape):
        dark = shades[row, column] > 0.5
        axes.text(column, row, f"{matrix[row, column]}", ha="center", va="center", color="white" if dark else "black")
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, [f"{label}\nF1 {f1:.2f}" for label, f1 in zip(labels, confusion.f1, strict=True)])
    axes.set(xlabel="found", ylabel="true")
    axes.spines[:].set_visible(False)
    axes.set_title(f"{title}\naccuracy {confusion.accuracy:.3f}, macro F1 {confusion.macro_f1:.3f}", fontsize=10)
    with replacing(picture) as aside:
        figure.savefig(aside, dpi=120, format="png")
