"""A line of the table: medians of both codes and of what they are compared with, and ratios within the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS = (
    "measured",
    "before",
    "today",
    "before / today",
    "compared with",
    "its figure",
    "before / it",
    "today / it",
    "agreement",
)


@dataclass(frozen=True)
class Row:
    """One thing that was measured, a value a round.

    Attributes:
        measured: what, with its unit.
        today, before: values of the code bases; none for ``before`` where it was not measured.
        other: what stands in the column ``compared with``, and ``others`` its values in the same rounds.
        agreement: of what both codes gave, or of ours and theirs, as the row's part says.
    """

    measured: str
    today: Sequence[float]
    before: Sequence[float] = ()
    other: str = ""
    others: Sequence[float] = ()
    agreement: str = ""

    def cells(self) -> list[str]:
        """One text a column."""
        return [
            self.measured,
            spread(self.before),
            spread(self.today),
            ratio(self.before, self.today),
            self.other,
            spread(self.others),
            ratio(self.before, self.others),
            ratio(self.today, self.others),
            self.agreement,
        ]


def spread(values: Sequence[float]) -> str:
    """The median, and least and most in parentheses."""
    if not values:
        return ""
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}-{number(max(values))})"


def ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """The median of the ratios within rounds; of the medians where there are not as many of both."""
    if not values or not others:
        return ""
    if len(values) != len(others):
        return f"{statistics.median(values) / statistics.median(others):.2f}x"
    return f"{statistics.median(one / other for one, other in zip(values, others, strict=True)):.2f}x"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
