"""Which layouts can run a model: the divisibility rules, written once for the search (arrays) and the runtime (one).

Each rule is a row of `RULES`: `broken` says for every layout of a batch whether it breaks the rule, `sentence` says
for one layout which field is wrong, its value, and what is allowed. Memory is not a rule: a layout that is legal may
still not fit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxscale.errors import LayoutError
from jaxscale.types._check import divisors
from jaxscale.types.layout import AXES, SCHEDULES, Layout, LayoutBatch
from jaxscale.types.model import ModelShape
from jaxscale.types.workload import Workload

_INTERLEAVED = SCHEDULES.index("interleaved")
_ZERO_BUBBLE = SCHEDULES.index("zero_bubble")
_LAYERED = SCHEDULES.index("layered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What the layouts of a batch are meant to run, and on how many devices."""

    shape: ModelShape
    workload: Workload
    num_devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One reason for a layout to be illegal."""

    name: str
    broken: Callable[[Problem, LayoutBatch], np.ndarray]  # -> bool [n]
    sentence: Callable[[Problem, Layout], str]


def tensor_dims(shape: ModelShape) -> dict[str, int]:
    """Sizes that the tensor axis must divide, by field name. The vocabulary is padded instead."""
    dims = {"num_heads": shape.num_heads}
    if shape.mla is None:
        dims["num_kv_heads"] = shape.num_kv_heads
    if shape.num_moe_layers < shape.num_layers:
        dims["d_ff"] = shape.d_ff
    if shape.moe is not None and shape.num_moe_layers:
        dims["expert_d_ff"] = shape.moe.expert_d_ff
        if shape.moe.num_shared_experts:
            dims["num_shared_experts * shared_expert_d_ff"] = (
                shape.moe.num_shared_experts * shape.moe.shared_expert_d_ff
            )
    return dims


def _num_experts(shape: ModelShape) -> int:
    """Routed experts, 1 where no layer is sparse."""
    return shape.moe.num_experts if shape.moe is not None and shape.num_moe_layers else 1


def _list(values: tuple[int, ...]) -> str:
    return ", ".join(str(value) for value in values)


def _broken_devices(p: Problem, layouts: LayoutBatch) -> np.ndarray:
    return layouts.num_devices != p.num_devices


def _say_devices(p: Problem, layout: Layout) -> str:
    product = " x ".join(f"{axis}={getattr(layout, axis)}" for axis in AXES)
    return f"{product} is {layout.num_devices} devices, but there are {p.num_devices}"


def _broken_batch(p: Problem, layouts: LayoutBatch) -> np.ndarray:
    return p.workload.global_batch_size % (layouts.batch_shards * layouts.microbatch_size) != 0


def _say_batch(p: Problem, layout: Layout) -> str:
    batch = p.workload.global_batch_size
    if batch % layout.batch_shards:
        return (
            f"data={layout.data} x fsdp={layout.fsdp} x expert={layout.expert} = {layout.batch_shards} batch shards "
            f"do not divide global_batch_size={batch}; divisors: {_list(divisors(batch))}"
        )
    local = batch // layout.batch_shards
    return (
        f"microbatch_size={layout.microbatch_size} does not divide the {local} sequences of a batch shard; "
        f"divisors: {_list(divisors(local))}"
    )


def _broken_tensor(p: Problem, layouts: LayoutBatch) -> np.ndarray:
    sizes = np.array(list(tensor_dims(p.shape).values()))  # [dims]
    return (sizes[:, None] % layouts.tensor[None, :] != 0).any(axis=0)


def _say_tensor(p: Problem, layout: Layout) -> str:
    name, size = next((n, s) for n, s in tensor_dims(p.shape).items() if s % layout.tensor)
    return f"tensor={layout.tensor} does not divide {name}={size}; divisors: {_list(divisors(size))}"


def _broken_rotary(p: Problem, layouts: LayoutBatch) -> np.ndarray:
    return np.full(len(layouts), p.shape.rotated_width % 2 != 0)


def _say_rotary(p: Problem, _: Layout) -> str:
    shape, width = p.shape, p.shape.rotated_width
    field = f"mla.qk_rope_head_dim={width}" if shape.mla else f"head_dim={shape.head_dim}"
    share = f" x rope.fraction={shape.rope.fraction:g} = {width}" if shape.rope.fraction < 1 and not shape.mla else ""
    return f"{field}{share} cannot rotate in pairs; allowed with positions=rope: even widths, such as {width + 1}"


def _broken_expert(p: Problem, layouts: LayoutBatch) -> np.ndarray:
    return _num_experts(p.shape) % layouts.expert != 0


def _say_expert(p: Problem, layout: Layout) -> str:
    experts = _num_experts(p.shape)
    if experts == 1:
        return f"expert={layout.expert} needs a mixture of experts, but {p.shape.name} is dense; allowed: 1"
    return f"expert={layout.expert} does not divide num_experts={experts}; divisors: {_list(divisors(experts))}"


def _broken_context(p: Problem, layouts: LayoutBatch) -> np.ndarray:
    # Each rank holds two chunks of the sequence, one early and one late, so that causal work is equal.
    chunks = np.where(layouts.context > 1, 2 * layouts.context, 1)
    return p.workload.seq_len % chunks != 0


def _say_context(p: Problem, layout: Layout) -> str:
    seq_len = p.workload.seq_len
    allowed = (1, *(d for d in divisors(seq_len) if d > 1 and seq_len % (2 * d) == 0))
    return f"2 x context={layout.context} does not divide seq_len={seq_len}; allowed: {_list(allowed)}"


def _broken_sequence(p: Problem, layouts: LayoutBatch) -> np.ndarray:
    splits = layouts.context * np.where(layouts.sequence_parallel > 0, layouts.tensor, 1)
    return p.workload.seq_len % splits != 0


def _say_sequence(p: Problem, layout: Layout) -> str:
    return (
        f"sequence_parallel=true splits seq_len={p.workload.seq_len} over context={layout.context} x "
        f"tensor={layout.tensor} = {layout.context * layout.tensor}, which does not divide it; "
        f"divisors: {_list(divisors(p.workload.seq_len))}"
    )


def _broken_pipeline(p: Problem, layouts: LayoutBatch) -> np.ndarray:
    return layouts.pipeline * layouts.virtual_stages > p.shape.num_layers


def _say_pipeline(p: Problem, layout: Layout) -> str:
    return (
        f"pipeline={layout.pipeline} x virtual_stages={layout.virtual_stages} needs "
        f"{layout.pipeline * layout.virtual_stages} layers, but num_layers={p.shape.num_layers}; "
        f"pipeline may be at most {max(p.shape.num_layers // layout.virtual_stages, 1)}"
    )


def _broken_virtual_stages(_: Problem, layouts: LayoutBatch) -> np.ndarray:
    chunked = ((layouts.schedule == _INTERLEAVED) | (layouts.schedule == _LAYERED)) & (layouts.pipeline > 1)
    return (layouts.virtual_stages > 1) & ~chunked


def _say_virtual_stages(_: Problem, layout: Layout) -> str:
    return (
        f"virtual_stages={layout.virtual_stages} needs schedule=interleaved or layered and pipeline above 1, "
        f"got schedule={layout.schedule}, pipeline={layout.pipeline}; allowed: 1"
    )


def _broken_microbatches(p: Problem, layouts: LayoutBatch) -> np.ndarray:
    # Interleaving passes microbatches through the chunks in groups of one per stage (arXiv 2104.04473, section 2.2).
    num_microbatches = p.workload.global_batch_size // (layouts.batch_shards * layouts.microbatch_size)
    interleaved = (layouts.schedule == _INTERLEAVED) & (layouts.pipeline > 1)
    return interleaved & (num_microbatches % layouts.pipeline != 0)


def _say_microbatches(p: Problem, layout: Layout) -> str:
    num_microbatches = layout.num_microbatches(p.workload.global_batch_size)
    return (
        f"schedule=interleaved needs microbatches in multiples of pipeline={layout.pipeline}, got {num_microbatches} "
        f"(global_batch_size={p.workload.global_batch_size} / {layout.batch_shards} batch shards / "
        f"microbatch_size={layout.microbatch_size})"
    )


def _broken_zero_bubble(_: Problem, layouts: LayoutBatch) -> np.ndarray:
    return (layouts.schedule == _ZERO_BUBBLE) & (layouts.pipeline > 1)


def _say_zero_bubble(_: Problem, layout: Layout) -> str:
    return (
        f"schedule={layout.schedule} is for runtimes with a process for each stage: one XLA program takes a stage's "
        "input and weight gradients from one backward pass, and splitting that pass costs a second recompute of the "
        "stage, more than the bubble it fills (experiments/zero_bubble); allowed: gpipe, 1f1b, interleaved, layered"
    )


RULES: tuple[Rule, ...] = (
    Rule(name="devices", broken=_broken_devices, sentence=_say_devices),
    Rule(name="batch", broken=_broken_batch, sentence=_say_batch),
    Rule(name="tensor", broken=_broken_tensor, sentence=_say_tensor),
    Rule(name="rotary", broken=_broken_rotary, sentence=_say_rotary),
    Rule(name="expert", broken=_broken_expert, sentence=_say_expert),
    Rule(name="context", broken=_broken_context, sentence=_say_context),
    Rule(name="sequence_parallel", broken=_broken_sequence, sentence=_say_sequence),
    Rule(name="pipeline", broken=_broken_pipeline, sentence=_say_pipeline),
    Rule(name="virtual_stages", broken=_broken_virtual_stages, sentence=_say_virtual_stages),
    Rule(name="microbatches", broken=_broken_microbatches, sentence=_say_microbatches),
    Rule(name="zero_bubble", broken=_broken_zero_bubble, sentence=_say_zero_bubble),
)


def illegal_reasons(
    shape: ModelShape, workload: Workload, layouts: LayoutBatch, num_devices: int
) -> dict[str, np.ndarray]:
    """For each rule, by name, which layouts break it: bool [n]. A layout is legal where every array is False."""
    problem = Problem(shape=shape, workload=workload, num_devices=num_devices)
    return {rule.name: rule.broken(problem, layouts) for rule in RULES}


def broken_rules(shape: ModelShape, workload: Workload, layout: Layout, num_devices: int) -> tuple[str, ...]:
    """One sentence for every rule that `layout` breaks; empty where it can run."""
    problem = Problem(shape=shape, workload=workload, num_devices=num_devices)
    batch = LayoutBatch.from_layouts([layout])
    return tuple(rule.sentence(problem, layout) for rule in RULES if rule.broken(problem, batch)[0])


def check_layout(shape: ModelShape, workload: Workload, layout: Layout, num_devices: int) -> None:
    """Raise LayoutError with one sentence for every rule that `layout` breaks."""
    sentences = broken_rules(shape, workload, layout, num_devices)
    if sentences:
        raise LayoutError("layout: " + "; ".join(sentences))
