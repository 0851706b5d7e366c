"""Every op of a predicted step as a point of the roofline."""

from collections.abc import Iterator

from jaxscale.cost.compute import OpCost, op_costs
from jaxscale.cost.parts import layer_slots
from jaxscale.cost.problem import Problem, problem
from jaxscale.report.figures.roofline import OpPoint, Roof
from jaxscale.types import Cluster, Layout, LayoutBatch, ModelShape, Stack, Workload


def device_roof(cluster: Cluster, workload: Workload) -> Roof:
    """Peak FLOP/s and memory bandwidth of one device, by the chip's data sheet."""
    chip = cluster.chip
    return Roof(
        flops_per_s=chip.peak(workload.precision.matmul) / chip.devices_per_chip,
        bytes_per_s=chip.hbm_bytes_per_s / chip.devices_per_chip,
    )


def predicted_ops(
    shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout, stack: Stack | None = None
) -> tuple[OpPoint, ...]:
    """Every op of the forward pass on the fullest device, as the cost model prices it.

    `runs` are those of a step: layers of the device times microbatches. An element-wise op counts as one FLOP for each
    element that it moves, which puts it on the memory's slope.
    """
    p = problem(shape, workload, cluster, stack)
    batch = LayoutBatch.from_layouts([layout])
    microbatches = float(layout.num_microbatches(workload.global_batch_size))
    points: list[OpPoint] = []
    for kind, layers in layer_slots(p, batch).items():
        prefix = "" if kind == "dense" else f"{kind} "
        points += _points(p, op_costs(p, p.inventory.layer(kind), batch), prefix, _one(layers) * microbatches)
    points += _points(p, op_costs(p, p.inventory.head, batch), "", microbatches)
    return tuple(points)


def _points(p: Problem, costs: dict[str, OpCost], prefix: str, runs: float) -> Iterator[OpPoint]:
    for cost in costs.values():
        num_bytes, seconds = _one(cost.forward_bytes), _one(cost.forward_s)
        flops = _one(cost.forward_flops) or num_bytes / p.compute_bytes
        if seconds > 0 and num_bytes > 0:
            kind = cost.kind if cost.kind in ("matmul", "attention") else "element-wise"
            yield OpPoint(
                name=prefix + cost.name, kind=kind, flops=flops, num_bytes=num_bytes, seconds=seconds, runs=runs
            )


def _one(value: object) -> float:
    """The number of a column of one row, or a plain number."""
    return float(getattr(value, "flat", [value])[0])  # type: ignore[arg-type]
