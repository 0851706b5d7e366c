"""A table of different runs as a few vectorised problems, evaluated at any value of the constants."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from jaxscale.calibrate.constants import Constant
from jaxscale.calibrate.run import Run
from jaxscale.cost.problem import Problem, problem, stack_problems, structure_of
from jaxscale.cost.step import EstimateBatch, estimate_batch
from jaxscale.types import LayoutBatch, Stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Runs of one structure: `rows` are their places in the table, [n]."""

    rows: np.ndarray
    problem: Problem
    layouts: LayoutBatch


def blocks(runs: Sequence[Run], stack_of: Callable[[Run], Stack]) -> tuple[Block, ...]:
    """Group runs by structure and stack each group into arrays."""
    problems = [problem(run.shape, run.workload, run.cluster, stack_of(run)) for run in runs]
    groups: dict[tuple, list[int]] = {}
    for row, p in enumerate(problems):
        groups.setdefault((structure_of(p), runs[row].layout.axis_order), []).append(row)
    return tuple(
        Block(
            rows=np.array(rows),
            problem=stack_problems([problems[row] for row in rows]),
            layouts=LayoutBatch.from_layouts([runs[row].layout for row in rows]),
        )
        for rows in groups.values()
    )


def estimates(block: Block) -> EstimateBatch:
    """Estimate every run of a block with the constants that it was built with."""
    return estimate_batch(block.problem, block.layouts, bounds=False)


def with_constants(
    block: Block, values: Mapping[Constant, Any], masks: Mapping[str, np.ndarray], xp: ModuleType
) -> Block:
    """A block whose stack takes other values of some constants where they apply; values may be tracers of `xp`."""
    stack = SimpleNamespace(**vars(block.problem.stack))
    for constant, value in values.items():
        here = masks[constant.name][block.rows]
        if here.any():
            setattr(stack, constant.field, xp.where(here, value, getattr(stack, constant.field)))
    return dataclasses.replace(block, problem=dataclasses.replace(block.problem, stack=stack, xp=xp))
