"""What the compiler and the twin run said about a ranked layout, beside what was predicted of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from jaxscale.types.results import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of one layout: did it pass, in a sentence with its figures.

    `passed` is None where the check could not be made, which says nothing about the layout.
    `estimate` is the compiled tier's record where the check was a compile that gave one.
    """

    kind: Literal["compile", "twin"]
    passed: bool | None
    sentence: str
    seconds: float
    estimate: Estimate | None = None
    figures: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedLayout:
    """A ranked layout and its checks; `rank` counts from 1 in the order of the prediction."""

    rank: int
    predicted: Estimate
    checks: tuple[Check, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no check struck it out."""
        return all(check.passed is not False for check in self.checks)

    @property
    def proven(self) -> bool:
        """Whether it was checked and passed every time."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def mark(self) -> str:
        """The verdict in a word: ok, no, ? (could not be checked), or nothing where it was not checked."""
        if not self.checks:
            return ""
        return "ok" if self.proven else "?" if self.passed else "no"

    @property
    def compiled(self) -> Estimate | None:
        """The compiler's record, where there is one."""
        return next((check.estimate for check in self.checks if check.estimate is not None), None)

    def to_json(self) -> dict:
        """The predicted record with the checks beside it."""
        return self.predicted.to_json() | {
            "rank": self.rank,
            "passed": self.passed,
            "checks": [
                {
                    "kind": check.kind,
                    "passed": check.passed,
                    "sentence": check.sentence,
                    "seconds": check.seconds,
                    "figures": dict(check.figures),
                    "compiled": check.estimate.to_json() if check.estimate else None,
                }
                for check in self.checks
            ],
        }


def winner_of(rows: Sequence[CheckedLayout]) -> CheckedLayout | None:
    """The best layout that was proven; where none could be, the best that was not struck out."""
    proven = [row for row in rows if row.proven]
    standing = [row for row in rows if row.passed]
    return next(iter(proven or standing), None)
