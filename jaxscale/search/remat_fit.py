"""The best remat policy and microbatch of a layout, as a small integer program over the ops of a layer.

For every op of a layer the program decides between keeping its output on the device, sending it to host memory, and
computing it again in the backward pass:

    minimise    sum_i (again_i * seconds_i + 2 * visible * host_i * bytes_i / host bandwidth) + 2 * exposed
    subject to  keep_i + host_i + again_i >= 1           if some backward pass needs tensor i
                keep_j + host_j + again_j >= again_i     for every input j of op i
                sum_i keep_i * bytes_i <= budget
                exposed >= sum_i host_i * bytes_i / host bandwidth - forward seconds

which is the formulation of Moccasin (Bartan et al. 2023, arXiv 2304.14463) and Checkmate (Jain et al. 2020, arXiv
1910.02653) with one class of tensors per op instead of one tensor per layer: all layers of a kind are treated alike, as
a scanned program must. HiGHS solves it exactly for a ladder of budgets and every legal microbatch; what it cannot see
(collectives that come with recomputing, the memory at work, the pipeline) is in the cost model that then ranks the
handful of policies which it found.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxscale.cost.compute import op_costs
from jaxscale.cost.inventory import LAYER_INPUT, Op
from jaxscale.cost.parts import layer_slots
from jaxscale.cost.problem import Problem, problem
from jaxscale.errors import LayoutError
from jaxscale.search.search import DEFAULT_HEADROOM, estimates
from jaxscale.types import REMAT_POLICIES, Cluster, Estimate, Layout, LayoutBatch, ModelShape, Stack, Workload
from jaxscale.types._check import divisors
from jaxscale.types.legality import broken_rules
from jaxscale.types.remat import own_remat, saveable_ops

BUDGETS = np.linspace(0.0, 1.0, 13)  # shares of all that a layer could save
FINER_BUDGETS = 6
SAME_TIME = 2e-3  # relative; closer than any prediction is true
_PREFER_DEVICE = 1e-9  # seconds: between equals, the one that moves nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class OpPrice:
    """One op of the layers of a stage, all layers together, for one microbatch."""

    name: str
    inputs: tuple[str, ...]
    needs: tuple[str, ...]  # tensors that its backward pass reads
    forward_s: float
    saved_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RematFit:
    """What fits a layout: policies and microbatches ranked by predicted step time."""

    given: Estimate | None  # the layout as it was; None where it is not legal as it is
    ranked: tuple[Estimate, ...]  # fastest first; all fit
    num_programs: int  # integer programs solved
    num_policies: int  # (policy, microbatch) pairs that were priced
    headroom: float


def fit_remat(
    shape: ModelShape,
    workload: Workload,
    cluster: Cluster,
    layout: Layout,
    *,
    stack: Stack | None = None,
    headroom: float = DEFAULT_HEADROOM,
) -> RematFit:
    """Choose `microbatch_size` and `remat` of a layout; everything else of it stays.

    The named policies compete too. Raises LayoutError where no microbatch makes the layout legal.
    """
    p = problem(shape, workload, cluster, stack)
    limit_bytes = (1.0 - headroom) * p.device.usable_hbm_bytes
    sizes = _legal_sizes(shape, workload, cluster, layout)
    priced: dict[Layout, Estimate] = {}
    programs = 0
    for size in sizes:
        sized = dataclasses.replace(layout, microbatch_size=size)
        found, solved = _policies(p, sized, limit_bytes)
        priced |= found
        programs += solved
    fitting = [e for e in priced.values() if e.memory_bytes <= limit_bytes]
    ranked = _distinct(_ordered(fitting)) if fitting else ()
    given = estimates(p, LayoutBatch.from_layouts([layout])) if layout.microbatch_size in sizes else (None,)
    return RematFit(given=given[0], ranked=ranked, num_programs=programs, num_policies=len(priced), headroom=headroom)


def _ordered(fitting: Sequence[Estimate]) -> list[Estimate]:
    """Fastest first; among those within a tolerance of time a named policy, then the least memory on the host."""
    best_s = min(e.step_time_s for e in fitting)
    return sorted(
        fitting,
        key=lambda e: (
            round((e.step_time_s / best_s - 1.0) / SAME_TIME),
            e.layout.remat not in REMAT_POLICIES,
            e.host_memory_bytes,
            e.memory_bytes,
            e.step_time_s,
        ),
    )


def _distinct(ranked: Sequence[Estimate]) -> tuple[Estimate, ...]:
    """Without policies that come to the same as one before: they name tensors that no backward pass needs."""
    kept: dict[tuple, Estimate] = {}
    for e in ranked:
        kept.setdefault((e.layout.microbatch_size, e.step_time_s, e.memory_bytes, e.host_memory_bytes), e)
    return tuple(kept.values())


def _legal_sizes(shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> list[int]:
    """Microbatch sizes with which the layout breaks no rule."""
    local_batch = max(workload.global_batch_size // layout.batch_shards, 1)
    sized = {size: dataclasses.replace(layout, microbatch_size=size) for size in divisors(local_batch)}
    broken = {size: broken_rules(shape, workload, one, cluster.num_devices) for size, one in sized.items()}
    legal = [size for size, rules in broken.items() if not rules]
    if not legal:
        raise LayoutError(f"layout: no microbatch size makes it legal: {next(iter(broken.values()))[0]}")
    return legal


def _policies(p: Problem, layout: Layout, limit_bytes: float) -> tuple[dict[Layout, Estimate], int]:
    """The named policies and those of the ladder of budgets, and once more between its last that fits and the next."""
    ops = op_prices(p, layout)
    total = sum(op.saved_bytes for op in ops)
    hidden = float(p.stack.host_overlap)
    visible = (1.0 - hidden) + hidden * float(p.stack.overlap_slowdown)

    def solved(shares: Iterable[float]) -> list[str]:
        return [own_remat(*solve(ops, share * total, p.device.host_bytes_per_s, visible)) for share in shares]

    def price(names: Iterable[str]) -> dict[Layout, Estimate]:
        layouts = list(dict.fromkeys(dataclasses.replace(layout, remat=name) for name in names))
        return dict(zip(layouts, estimates(p, LayoutBatch.from_layouts(layouts)), strict=True))

    ladder = solved(BUDGETS)
    found = price([*REMAT_POLICIES, *ladder])
    fits = [found[dataclasses.replace(layout, remat=name)].memory_bytes <= limit_bytes for name in ladder]
    if all(fits) or not fits[0]:
        return found, len(ladder)
    first_too_large = fits.index(False)
    finer = np.linspace(BUDGETS[first_too_large - 1], BUDGETS[first_too_large], FINER_BUDGETS + 2)[1:-1]
    return found | price(solved(finer)), len(ladder) + FINER_BUDGETS


def op_prices(p: Problem, layout: Layout) -> tuple[OpPrice, ...]:
    """Prices of a stage's ops; an op that both kinds of layer have counts with both."""
    row = LayoutBatch.from_layouts([layout])
    prices: dict[str, OpPrice] = {}
    for kind, slots in layer_slots(p, row).items():
        ops = p.inventory.layer(kind)
        costs = op_costs(p, ops, row)
        for op in ops:
            cost, layers = costs[op.name], _number(slots)
            before = prices.get(op.name)
            prices[op.name] = OpPrice(
                name=op.name,
                inputs=_union(before.inputs if before else (), op.inputs),
                needs=_union(before.needs if before else (), op.needs),
                forward_s=layers * _number(cost.forward_s) + (before.forward_s if before else 0.0),
                saved_bytes=layers * _number(cost.output_bytes + cost.extra_bytes)
                + (before.saved_bytes if before else 0.0),
            )
    return tuple(prices.values())


def _number(value: object) -> float:
    return float(np.asarray(value).reshape(-1)[0])


def _union(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*one, *other]))


def solve(
    ops: Sequence[OpPrice], budget_bytes: float, host_bytes_per_s: float, visible: float = 0.0
) -> tuple[frozenset[str], frozenset[str]]:
    """Ops to keep on the device and ops to send to the host: the optimum within `budget_bytes` of saved tensors.

    `visible` is the share of a host copy's seconds that shows in the step though compute could hide all of it.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    n = len(ops)
    index = {op.name: i for i, op in enumerate(ops)}
    bytes_each = np.array([op.saved_bytes for op in ops])
    forward_s = np.array([op.forward_s for op in ops])
    copies_s = bytes_each / host_bytes_per_s
    cost = np.concatenate([np.zeros(n), 2.0 * visible * copies_s + _PREFER_DEVICE, forward_s, [2.0]])
    rows, lowest = _graph_rows(ops, index)
    rows.append(np.concatenate([np.zeros(n), -copies_s, np.zeros(n), [1.0]]))
    lowest.append(-float(forward_s.sum()))
    memory = np.concatenate([bytes_each, np.zeros(2 * n), [0.0]]) / max(float(bytes_each.sum()), 1.0)
    within = budget_bytes / max(float(bytes_each.sum()), 1.0)
    keepable = np.array([float(op.name in saveable_ops()) for op in ops])
    one_place = np.hstack([np.eye(n), np.eye(n), np.zeros((n, n + 1))])
    answer = milp(
        cost,
        options={"mip_rel_gap": 0.0},
        integrality=np.concatenate([np.ones(3 * n), [0.0]]),
        bounds=Bounds(np.zeros(3 * n + 1), np.concatenate([keepable, keepable, np.ones(n), [np.inf]])),
        constraints=[
            LinearConstraint(np.array(rows), lb=lowest),
            LinearConstraint(memory[None, :], ub=within + 1e-9),
            LinearConstraint(one_place, ub=np.ones(n)),
        ],
    )
    chosen = np.round(answer.x[: 2 * n]).astype(bool)
    names = np.array([op.name for op in ops])
    return frozenset(names[chosen[:n]].tolist()), frozenset(names[chosen[n:]].tolist())


def _graph_rows(ops: Iterable[Op | OpPrice], index: Mapping[str, int]) -> tuple[list[np.ndarray], list[float]]:
    """Rows of the constraints that make every needed tensor exist, and their lower bounds."""
    n = len(index)
    rows, lowest = [], []

    def exists(tensor: str) -> np.ndarray:
        row = np.zeros(3 * n + 1)
        row[[index[tensor], n + index[tensor], 2 * n + index[tensor]]] = 1.0
        return row

    ops = tuple(ops)
    for tensor in dict.fromkeys(t for op in ops for t in op.needs if t != LAYER_INPUT):
        rows.append(exists(tensor))
        lowest.append(1.0)
    for op in ops:
        for tensor in op.inputs:
            if tensor != LAYER_INPUT:
                row = exists(tensor)
                row[2 * n + index[op.name]] -= 1.0
                rows.append(row)
                lowest.append(0.0)
    return rows, lowest
