"""A pipeline schedule as data: what each stage does, in order."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxscale.errors import LayoutError
from jaxscale.types._check import require_choice, require_positive_int

Kind = Literal["F", "B", "W"]
Placement = Literal["looped", "contiguous"]

KINDS: dict[str, str] = {"F": "forward", "B": "backward", "W": "weight gradient"}
IDLE = -1  # the microbatch of a slot without work: a scan gives every stage as many slots in every tick


class Action(NamedTuple):
    """One microbatch through one chunk of one stage.

    `B` is the whole backward, or the gradient with respect to the input where the table also has `W`, the gradient
    with respect to the weights (zero bubble, Qi et al. 2024).
    """

    kind: Kind
    microbatch: int
    chunk: int

    @property
    def idle(self) -> bool:
        """Whether the slot has no work and is skipped: the fill or the drain of a scan."""
        return self.microbatch == IDLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The order of work of every stage.

    The model is cut in stages x chunks equal parts. `looped`: chunk c of stage s is part c * stages + s (interleaved);
    `contiguous`: part s * chunks + c. `slots_per_tick` is 0 where a stage starts an action as soon as its inputs are
    there; otherwise all stages run that many actions, exchange their outputs, and go on together (a scan).
    """

    family: str
    stages: int
    microbatches: int
    chunks: int
    actions: tuple[tuple[Action, ...], ...]  # [stage][slot]
    placement: Placement = "looped"
    slots_per_tick: int = 0

    def __post_init__(self) -> None:
        owner = f"schedule {self.family!r}"
        require_positive_int(owner, LayoutError, stages=self.stages, microbatches=self.microbatches, chunks=self.chunks)
        require_positive_int(owner, LayoutError, minimum=0, slots_per_tick=self.slots_per_tick)
        require_choice(owner, LayoutError, allowed=("looped", "contiguous"), placement=self.placement)
        if len(self.actions) != self.stages:
            raise LayoutError(
                f"{owner}: actions has {len(self.actions)} rows, one for each of {self.stages} stages is needed"
            )
        for stage, row in enumerate(self.actions):
            _check_row(f"{owner}: stage {stage}", row, self.microbatches, self.chunks)
        if self.slots_per_tick and len({len(row) for row in self.actions}) != 1:
            raise LayoutError(f"{owner}: stages that tick together need rows of one length")
        if self.slots_per_tick and len(self.actions[0]) % self.slots_per_tick:
            raise LayoutError(
                f"{owner}: slots_per_tick={self.slots_per_tick} must divide the {len(self.actions[0])} slots of a stage"
            )

    @property
    def splits_backward(self) -> bool:
        """Whether the weight gradient is an action of its own."""
        return any(action.kind == "W" for action in self.actions[0])

    def part(self, stage: int, chunk: int) -> int:
        """Which part of the model, 0 to stages x chunks - 1 in forward order, a chunk of a stage is."""
        return chunk * self.stages + stage if self.placement == "looped" else stage * self.chunks + chunk

    def holder(self, part: int) -> tuple[int, int]:
        """The (stage, chunk) that holds a part of the model."""
        if self.placement == "looped":
            return part % self.stages, part // self.stages
        return part // self.chunks, part % self.chunks


def _check_row(owner: str, row: tuple[Action, ...], microbatches: int, chunks: int) -> None:
    """Require each kind of the row to meet every microbatch and chunk exactly once."""
    kept = [action for action in row if not action.idle]
    kinds = {"F", "B"} | {action.kind for action in kept}
    wanted = {Action(k, i, c) for k in kinds for i in range(microbatches) for c in range(chunks)}
    wrong = wanted.symmetric_difference(kept)
    if wrong:
        raise LayoutError(
            f"{owner}: {min(wrong)} is missing or not one of {microbatches} microbatches x {chunks} chunks"
        )
    if len(kept) != len(wanted):
        raise LayoutError(f"{owner}: {len(kept) - len(wanted)} actions run twice")
