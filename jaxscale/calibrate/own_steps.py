"""Small steps of a probe -> the constants of jaxscale's own training step on this very machine.

Minimises the squared error of log step time over the steps, with normal priors on the logarithm of every constant, so
that a constant which the steps do not tell apart stays where it was believed to be. The priors of a network's latency
and bandwidth are what the collectives took by themselves: in a step, other devices work while some wait.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import least_squares

from jaxscale.cost import Problem, estimate_batch, problem
from jaxscale.cost.network import cluster_levels
from jaxscale.types import Cluster, LayoutBatch, ModelShape, Stack, Workload
from jaxscale.types.measurement import ProbeStep

NOISE = 0.03  # of log step time: what the formulas cannot follow, and what measuring again differs by
MAX_SPREAD = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnConstant:
    """A figure that the steps decide: its prior median, and the standard deviation of its logarithm.

    Of the stack the median is in the field's unit; of the innermost network it is relative to what was measured there.
    """

    field: str
    centre: float
    spread: float
    of: Literal["stack", "network"] = "stack"


# Of emulated devices. Microbenchmarks say what large operations reach; these, how a step of many small ones differs.
EMULATED: tuple[OwnConstant, ...] = (
    OwnConstant(field="elementwise_passes", centre=7.5, spread=0.5),
    OwnConstant(field="norm_passes", centre=10.0, spread=0.5),
    OwnConstant(field="activation_passes", centre=25.0, spread=0.5),
    OwnConstant(field="score_passes", centre=20.0, spread=0.5),
    OwnConstant(field="weight_passes", centre=20.0, spread=0.7),
    OwnConstant(field="saved_passes", centre=5.0, spread=0.7),
    OwnConstant(field="kernel_gap_s", centre=3e-5, spread=0.7),
    OwnConstant(field="step_overhead_s", centre=4e-3, spread=0.4),
    OwnConstant(field="microbatch_overhead_s", centre=1e-3, spread=1.0),
    OwnConstant(field="latency_s", centre=0.5, spread=0.7, of="network"),
    OwnConstant(field="bytes_per_s", centre=1.0, spread=0.4, of="network"),
)


def fit_own_steps(
    base: Stack, cluster: Cluster, steps: Sequence[ProbeStep], constants: Sequence[OwnConstant] = EMULATED
) -> Cluster:
    """`cluster` with a stack: `base` with `constants` fitted to the steps, `sigma_log` from what stays unexplained."""
    measured = np.log([step.seconds for step in steps])
    centres = np.log([constant.centre for constant in constants])
    spreads = np.array([constant.spread for constant in constants])

    def at(free: np.ndarray) -> Cluster:
        return _with_constants(cluster, base, constants, np.exp(free))

    groups = _groups(at(centres), steps)

    def errors(free: np.ndarray) -> np.ndarray:
        return np.log(_times_s(groups, at(free), len(steps))) - measured

    def residuals(free: np.ndarray) -> np.ndarray:
        return np.concatenate([errors(free) / NOISE, (free - centres) / spreads])

    found = least_squares(residuals, centres, x_scale=spreads, loss="soft_l1")
    fitted = at(found.x)
    assert fitted.stack is not None
    stack = dataclasses.replace(
        fitted.stack, sigma_log=_sigma(errors(found.x), len(constants)),
        source=f"jaxscale probe: {len(steps)} small steps on {cluster.name}",
    )  # fmt: skip
    return dataclasses.replace(fitted, stack=stack)


def _with_constants(cluster: Cluster, base: Stack, constants: Sequence[OwnConstant], values: np.ndarray) -> Cluster:
    of_stack = {c.field: float(v) for c, v in zip(constants, values, strict=True) if c.of == "stack"}
    inner, *outer = cluster.tiers
    of_network = {
        c.field: float(v) * getattr(inner, c.field) for c, v in zip(constants, values, strict=True) if c.of == "network"
    }
    tiers = (dataclasses.replace(inner, **of_network), *outer)
    return dataclasses.replace(cluster, stack=dataclasses.replace(base, **of_stack), tiers=tiers)


def predicted_s(cluster: Cluster, steps: Sequence[ProbeStep]) -> np.ndarray:
    """Predicted seconds of each step, [n]."""
    return _times_s(_groups(cluster, steps), cluster, len(steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Steps of one model and workload, priced together; `rows` are their places among all steps."""

    problem: Problem
    layouts: LayoutBatch
    rows: list[int]


def _groups(cluster: Cluster, steps: Sequence[ProbeStep]) -> list[_Group]:
    rows: dict[tuple[ModelShape, Workload], list[int]] = {}
    for row, step in enumerate(steps):
        rows.setdefault((step.shape, step.workload), []).append(row)
    return [
        _Group(
            problem=problem(*subject, cluster),
            layouts=LayoutBatch.from_layouts([steps[row].layout for row in members]), rows=members,
        )
        for subject, members in rows.items()
    ]  # fmt: skip


def _times_s(groups: Sequence[_Group], cluster: Cluster, count: int) -> np.ndarray:
    times = np.zeros(count)
    for group in groups:
        p = dataclasses.replace(
            group.problem, stack=cluster.stack or group.problem.stack, levels=cluster_levels(cluster)
        )
        times[group.rows] = estimate_batch(p, group.layouts, bounds=False).step_time_s
    return times


def _sigma(errors: np.ndarray, num_constants: int) -> float:
    """Standard deviation of log error on steps that were not fitted: as seen, for as many constants as were free."""
    free = max(len(errors) - num_constants, 1)
    return float(min(max(np.sqrt(np.sum(errors**2) / free), NOISE), MAX_SPREAD))
