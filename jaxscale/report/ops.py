"""Every op of a predicted step as a point of the roofline."""

from collections.abc import Iterator

from jaxscale.cost.compute import OpCost, op_costs
from jaxscale.cost.memory import weight_bytes
from jaxscale.cost.numbers import Number
from jaxscale.cost.parts import layer_slots
from jaxscale.cost.problem import Problem, problem
from jaxscale.cost.remat import remat_plan
from jaxscale.cost.timeline import optimizer_bytes
from jaxscale.report.figures.roofline import BACKWARD, OpPoint, Roof
from jaxscale.types import Cluster, Estimate, LayoutBatch, ModelShape, Stack, Workload, remat_policy


def device_roof(cluster: Cluster, workload: Workload) -> Roof:
    """Peak FLOP/s and memory bandwidth of one device, by the chip's data sheet."""
    chip = cluster.chip
    return Roof(
        flops_per_s=chip.peak(workload.precision.matmul) / chip.devices_per_chip,
        bytes_per_s=chip.hbm_bytes_per_s / chip.devices_per_chip,
    )


def predicted_ops(
    shape: ModelShape, workload: Workload, cluster: Cluster, e: Estimate, stack: Stack | None = None
) -> tuple[OpPoint, ...]:
    """Every op of a step on the fullest device, as the cost model prices it: forward, backward, optimizer.

    `runs` are those of a step: layers of the device times microbatches, and for a forward op that is recomputed twice
    as many. An element-wise op counts as one FLOP for each element that it moves, which puts it on the memory's slope.
    """
    p = problem(shape, workload, cluster, stack)
    batch = LayoutBatch.from_layouts([e.layout])
    microbatches = float(e.layout.num_microbatches(workload.global_batch_size))
    points: list[OpPoint] = []
    for kind, layers in layer_slots(p, batch).items():
        ops = p.inventory.layer(kind)
        again = remat_plan(ops, remat_policy(e.layout.remat)).recomputed
        prefix = "" if kind == "dense" else f"{kind} "
        points += _points(p, op_costs(p, ops, batch), prefix, _one(layers) * microbatches, again)
    points += _points(p, op_costs(p, p.inventory.head, batch), "", microbatches, frozenset())
    return (*points, *_update(p, batch, workload, e))


def _points(p: Problem, costs: dict[str, OpCost], prefix: str, runs: float, again: frozenset[str]) -> Iterator[OpPoint]:
    """Two points for each op: its forward pass, and its backward pass (of a matmul, two)."""
    for cost in costs.values():
        kind = cost.kind if cost.kind in ("matmul", "attention") else "element-wise"
        ahead = cost.forward_flops, cost.forward_bytes, cost.forward_s
        back = cost.backward_flops, cost.backward_bytes, cost.backward_s
        times = runs * (1.0 + (cost.name in again))
        yield from _point(p, prefix + cost.name, kind, ahead, times)
        yield from _point(p, prefix + cost.name + BACKWARD, kind + BACKWARD, back, runs)


def _point(p: Problem, name: str, kind: str, figures: tuple[Number, Number, Number], runs: float) -> Iterator[OpPoint]:
    """One pass of an op from its FLOPs, bytes and seconds; none where it does nothing."""
    flops, num_bytes, seconds = map(_one, figures)
    seconds *= _one(p.stack.pace)
    if seconds > 0 and num_bytes > 0:
        counted = flops or num_bytes / p.compute_bytes
        yield OpPoint(name=name, kind=kind, flops=counted, num_bytes=num_bytes, seconds=seconds, runs=runs)


def _update(p: Problem, batch: LayoutBatch, workload: Workload, e: Estimate) -> Iterator[OpPoint]:
    """The optimizer's pass over the weights that a device updates."""
    elements = weight_bytes(p, batch).state.elements
    seconds = e.time_parts_s.get("optimizer", 0.0)
    if seconds > 0:
        yield OpPoint(
            name=workload.optimizer.name, kind="optimizer", flops=_one(elements) * workload.optimizer.flops_per_param,
            num_bytes=_one(optimizer_bytes(p, elements)), seconds=seconds, runs=1.0,
        )  # fmt: skip


def _one(value: object) -> float:
    """The number of a column of one row, or a plain number."""
    return float(getattr(value, "flat", [value])[0])  # type: ignore[arg-type]
