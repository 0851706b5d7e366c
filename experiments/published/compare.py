"""Printed value, predicted value, error: the table that every script of this folder prints."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One published figure and our prediction of it, in the source's own unit."""

    name: str
    printed: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.printed - 1.0


def show(title: str, unit: str, lines: Iterable[Line]) -> None:
    """Print one table with its median error."""
    lines = list(lines)
    print(f"\n{title}\n{'':44s} {'printed':>10s} {'predicted':>10s} {'error':>8s}   {unit}")
    for line in lines:
        print(f"{line.name[:44]:44s} {line.printed:10.4g} {line.predicted:10.4g} {100 * line.error:+7.1f}%")
    print(f"{'median of |error|':44s} {'':21s} {100 * np.median([abs(line.error) for line in lines]):7.1f}%")
