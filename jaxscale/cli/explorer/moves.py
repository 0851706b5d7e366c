"""What can be changed about a layout by hand, and what a change brings with it."""

import dataclasses
from dataclasses import dataclass

from jaxscale.calibrate import own_stack
from jaxscale.cost import estimate
from jaxscale.errors import LayoutError
from jaxscale.types import AXES, Cluster, Estimate, Layout, ModelShape, Workload
from jaxscale.types._check import divisors
from jaxscale.types.layout import BOOLS, CHOICES, SHARDS
from jaxscale.types.legality import broken_rules

Value = int | bool | str
SHARD_FIELDS = ("params_shard", "grads_shard", "optimizer_shard")
FIELDS = (
    *AXES, "microbatch_size", "sequence_parallel", *SHARD_FIELDS, "remat", "schedule", "virtual_stages",
    "context_method", "offload_optimizer",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is explored: everything but the layout."""

    shape: ModelShape
    workload: Workload
    cluster: Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A layout with its estimate, or with the reasons why it cannot run."""

    layout: Layout
    estimate: Estimate | None
    reasons: tuple[str, ...] = ()


def point(problem: Problem, layout: Layout) -> Point:
    """Price a layout, legal or not."""
    given = (problem.shape, problem.workload)
    reasons = broken_rules(*given, layout, problem.cluster.num_devices)
    if reasons:
        return Point(layout=layout, estimate=None, reasons=reasons)
    stack = own_stack(problem.cluster, problem.workload)
    return Point(layout=layout, estimate=estimate(*given, problem.cluster, layout, stack))


def values(problem: Problem, layout: Layout, field: str) -> tuple[Value, ...]:
    """Everything that a field may be set to, in order; the layout's own value is always among them.

    >>> from jaxscale.catalog import load_cluster, load_model
    >>> p = Problem(shape=load_model("llama3-8b"), workload=Workload(seq_len=8, global_batch_size=6),
    ...             cluster=load_cluster("cpu:8"))
    >>> values(p, Layout(), "tensor"), values(p, Layout(), "microbatch_size")
    ((1, 2, 4, 8), (1, 2, 3, 6))
    """
    known: tuple[Value, ...]
    if field in BOOLS:
        known = (False, True)
    elif field in CHOICES:
        known = CHOICES[field]
    elif field == "microbatch_size":
        known = divisors(problem.workload.global_batch_size)
    else:
        known = divisors(problem.shape.num_layers if field == "virtual_stages" else problem.cluster.num_devices)
    own = getattr(layout, field)
    return known if own in known else (*known, own)


def changed(problem: Problem, layout: Layout, field: str, value: Value) -> Layout:
    """Set a field, and what must follow from it.

    A degree takes its factor from fsdp (fsdp itself from data) where that divides, so that the devices stay as many.
    Gradients are sharded at least as widely as parameters, optimizer state as gradients.
    """
    if field in AXES:
        return _with_degree(problem, layout, field, int(value))
    if field in SHARD_FIELDS:
        return _with_shard(layout, field, str(value))
    return dataclasses.replace(layout, **{field: value})  # type: ignore[arg-type]


def _with_degree(problem: Problem, layout: Layout, axis: str, degree: int) -> Layout:
    moved = dataclasses.replace(layout, **{axis: degree})  # type: ignore[arg-type]
    giver = "data" if axis == "fsdp" else "fsdp"
    others = moved.num_devices // getattr(moved, giver)
    left, rest = divmod(problem.cluster.num_devices, others)
    return dataclasses.replace(moved, **{giver: left}) if left and not rest else moved  # type: ignore[arg-type]


def _with_shard(layout: Layout, field: str, value: str) -> Layout:
    at = SHARD_FIELDS.index(field)
    widths = [SHARDS.index(getattr(layout, name)) for name in SHARD_FIELDS]
    wanted = SHARDS.index(value)
    widths = [min(w, wanted) if i < at else wanted if i == at else max(w, wanted) for i, w in enumerate(widths)]
    nested = {name: SHARDS[width] for name, width in zip(SHARD_FIELDS, widths, strict=True)}
    return dataclasses.replace(layout, **nested)  # type: ignore[arg-type]


def stepped(problem: Problem, layout: Layout, field: str, by: int) -> Layout:
    """The field's next (`by=1`) or previous (`by=-1`) value; at the end of the list the layout stays."""
    known = values(problem, layout, field)
    at = known.index(getattr(layout, field)) + by
    return changed(problem, layout, field, known[at]) if 0 <= at < len(known) else layout


def alternatives(problem: Problem, layout: Layout, field: str) -> tuple[tuple[Value, Point], ...]:
    """Every value of a field with the point that it leads to."""
    return tuple((v, point(problem, changed(problem, layout, field, v))) for v in values(problem, layout, field))


def start(problem: Problem, given: Layout | None, found: Layout | None) -> Layout:
    """Where to begin: the layout that was asked for, else the best one found."""
    layout = given or found
    if layout is None:
        raise LayoutError('nothing fits to begin with; name a layout, such as --layout "fsdp=8,remat=full"')
    return layout
