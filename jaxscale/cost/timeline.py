"""From prices to a step time: what hides behind what, the pipeline schedule, and the bounds on either side.

A collective hides behind the compute it can run beside, up to the share that the stack manages to overlap:
`hidden = min(overlap * communication, compute)`. The rest is exposed. Hidden communication is not free: it takes
memory bandwidth and cores from the compute it hides behind (`overlap_slowdown`).

`lower_s` lets everything hide, `upper_s` nothing; the estimate lies between them.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxscale.cost.emulated import emulated_parts_s
from jaxscale.cost.memory import StateBytes
from jaxscale.cost.numbers import Number
from jaxscale.cost.parts import Parts, at_rows
from jaxscale.cost.problem import Problem
from jaxscale.schedule import StageTimes, makespan_s
from jaxscale.types import LayoutBatch
from jaxscale.types.layout import SCHEDULES

BACKWARD_LAUNCHES = 1.5  # kernels of a backward pass relative to its forward, launched from C++


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Seconds of a step: the total, its bounds, and parts that sum to it; arrays [n]."""

    step_time_s: Number
    lower_s: Number
    upper_s: Number
    parts_s: dict[str, Number]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """One direction of one microbatch through a stage: compute seconds by part, communication seconds by axis."""

    compute_s: dict[str, Number]
    comm_s: dict[str, Number]
    dispatch_s: Number  # host time to launch it: the device cannot be faster


def step_times(p: Problem, layouts: LayoutBatch, pieces: Parts, held: StateBytes, *, bounds: bool = True) -> StepTimes:
    """Assemble the step of every layout; without `bounds` the lower and upper ones are the estimate itself."""
    comm = _communication(p, pieces)
    dispatch_s = p.stack.layer_dispatch_s * sum(pieces.slots.values())
    copies_s = _host_copies_s(p, pieces)
    forward = _Pass(
        compute_s=_sum_layers(pieces, "forward_s"), comm_s=comm["forward"] | {"host": copies_s}, dispatch_s=dispatch_s
    )
    again = sum(pieces.slots[k] * layer.recompute_s for k, layer in pieces.layers.items())
    backward_s = _sum_layers(pieces, "backward_s") | {"recompute": again}
    backward_s["elementwise"] = backward_s["elementwise"] + _accumulation_s(p, pieces, held)
    backward = _Pass(
        compute_s=backward_s,
        comm_s={axis: comm["backward"][axis] + comm["recompute"][axis] for axis in comm["backward"]}
        | {"host": copies_s},
        dispatch_s=dispatch_s * (BACKWARD_LAUNCHES + (again > 0)),
    )
    optimizer_s = _optimizer_s(p, layouts, held.elements)
    exposed = _assemble(p, layouts, pieces, forward, backward, comm["step"], optimizer_s, hide=_hide)
    total = sum(exposed.values())
    if not bounds:
        return StepTimes(step_time_s=total, lower_s=total, upper_s=total, parts_s=exposed)
    none = _assemble(p, layouts, pieces, forward, backward, comm["step"], optimizer_s, hide=_hide_nothing)
    every = _assemble(p, layouts, pieces, forward, backward, comm["step"], optimizer_s, hide=_hide_all)
    upper, lower = sum(none.values()), sum(every.values())
    return StepTimes(
        step_time_s=total, lower_s=p.xp.minimum(lower, total), upper_s=p.xp.maximum(upper, total), parts_s=exposed
    )


def _sum_layers(pieces: Parts, field: str) -> dict[str, Number]:
    totals: dict[str, Number] = {"matmul": 0.0, "attention": 0.0, "elementwise": 0.0}
    for kind, layer in pieces.layers.items():
        for part, seconds in getattr(layer, field).items():
            totals[part] = totals[part] + pieces.slots[kind] * seconds
    return totals


def _host_copies_s(p: Problem, pieces: Parts) -> Number:
    """Seconds of one microbatch's offloaded activations on their way to the host, and as long on the way back."""
    moved = sum(pieces.slots[kind] * layer.offloaded_bytes for kind, layer in pieces.layers.items())
    return moved / p.device.host_bytes_per_s


def _communication(p: Problem, pieces: Parts) -> dict[str, dict[str, Number]]:
    """Seconds by phase and axis: of one microbatch through a stage, or of the step."""
    axes = ("tensor", "context", "expert", "fsdp", "data", "pipeline")
    totals: dict[str, dict[str, Number]] = {}
    for phase in ("forward", "backward", "recompute", "step"):
        totals[phase] = {axis: 0.0 for axis in axes}
        for exchanges in pieces.exchanges:
            sums: dict[str, Number] = {}
            for exchange in exchanges.each:
                if exchange.phase == phase:
                    sums[exchange.axis] = sums.get(exchange.axis, 0.0) + exchange.seconds
            for axis, seconds in sums.items():
                totals[phase][axis] = totals[phase][axis] + at_rows(seconds, exchanges.rows) * exchanges.layers
    return totals


Hide = Callable[[Problem, str, Number, Number], tuple[Number, Number]]


def _hide(p: Problem, axis: str, comm_s: Number, compute_s: Number) -> tuple[Number, Number]:
    """Exposed seconds, and seconds by which hidden communication slows compute."""
    hidden = p.xp.minimum(getattr(p.stack, f"{axis}_overlap") * comm_s, compute_s)
    return comm_s - hidden, hidden * p.stack.overlap_slowdown


def _hide_nothing(p: Problem, axis: str, comm_s: Number, compute_s: Number) -> tuple[Number, Number]:
    return comm_s, 0.0


def _hide_all(p: Problem, axis: str, comm_s: Number, compute_s: Number) -> tuple[Number, Number]:
    return p.xp.maximum(comm_s - compute_s, 0.0), 0.0


def _expose(p: Problem, one: _Pass, hide: Hide) -> dict[str, Number]:
    """One pass with each axis's communication set against what compute is left to hide it."""
    room = sum(one.compute_s.values())
    exposed = dict(one.compute_s)
    slowdown: Number = 0.0
    for axis in ("tensor", "expert", "context", "fsdp", "host"):
        left, slower = hide(p, axis, one.comm_s[axis], room)
        room = p.xp.maximum(room - (one.comm_s[axis] - left), 0.0)
        exposed[axis] = left
        slowdown = slowdown + slower
    exposed["contention"] = slowdown
    exposed["launch"] = p.xp.maximum(one.dispatch_s - sum(exposed.values()), 0.0)
    return exposed


def _assemble(
    p: Problem,
    layouts: LayoutBatch,
    pieces: Parts,
    forward: _Pass,
    backward: _Pass,
    step_comm: dict[str, Number],
    optimizer_s: Number,
    hide: Hide,
) -> dict[str, Number]:
    """Time parts of the whole step under one hiding rule; they sum to the step."""
    m = pieces.num_microbatches
    ahead, back = _expose(p, forward, hide), _expose(p, backward, hide)
    if p.device.kind == "cpu":
        send_s = forward.comm_s["pipeline"]
        return _paced(p, emulated_parts_s(p, layouts, pieces, ahead, back, step_comm, send_s, optimizer_s))
    head = pieces.head
    head_forward, head_backward = sum(head.forward_s.values()), sum(head.backward_s.values())
    forward_s, backward_s = sum(ahead.values()), sum(back.values())
    send_s, _ = hide(p, "pipeline", forward.comm_s["pipeline"], forward_s / layouts.virtual_stages)
    total = pipeline_s(p, layouts, pieces, forward_s, backward_s, send_s)
    merged = {part: m * (ahead.get(part, 0.0) + back.get(part, 0.0)) for part in (*ahead, "recompute")}
    shown = _shown(p, pieces, forward_s + backward_s, head_forward + head_backward)
    for part in ("matmul", "attention", "elementwise"):
        merged[part] = merged[part] + m * shown * (head.forward_s[part] + head.backward_s[part])
    merged["elementwise"] = merged["elementwise"] + m * 2.0 * pieces.embedding_s
    merged["pipeline"] = p.xp.maximum(total - sum(merged.values()), 0.0)
    # The last microbatch's backward is what gradient reduction can hide behind.
    left, slower = hide(p, "data", step_comm["data"], backward_s)
    merged["data"] = left
    merged["contention"] = merged["contention"] + slower
    merged["optimizer"] = optimizer_s
    merged["overhead"] = overhead_s(p, m)
    merged["stragglers"] = stragglers_s(p, total)
    return _paced(p, merged)


def overhead_s(p: Problem, num_microbatches: Number) -> Number:
    """Seconds of starting a step and its microbatches."""
    return p.stack.step_overhead_s + num_microbatches * p.stack.microbatch_overhead_s


def stragglers_s(p: Problem, total_s: Number) -> Number:
    """Seconds that the slowest of n devices falls behind the mean: about as much again with every doubling."""
    return total_s * p.stack.straggler_frac * np.log2(p.num_chips * p.devices_per_chip)


def _paced(p: Problem, parts: dict[str, Number]) -> dict[str, Number]:
    pace = p.stack.pace
    return {part: seconds * pace for part, seconds in parts.items()} if np.any(pace != 1.0) else parts


def _shown(p: Problem, pieces: Parts, stage_s: Number, head_s: Number) -> Number:
    """Share of the head's seconds by which the last stage exceeds the fullest, which has more layers."""
    split = pieces.split
    if split.last is split.fullest:
        return 1.0
    spared_s = stage_s * (1.0 - split.last / split.fullest)
    return p.xp.maximum(1.0 - spared_s / head_s, 0.0)


def pipeline_s(
    p: Problem, layouts: LayoutBatch, pieces: Parts, forward_s: Number, backward_s: Number, send_s: Number
) -> Number:
    """Seconds of all microbatches through all stages, by each row's own schedule; seconds are of the fullest stage.

    One XLA program runs the same ticks on every stage: `circular` for gpipe and interleaved, `scan_1f1b` for 1f1b,
    whose tick also repeats the forward pass of the stage. Other stacks run the classical schedules.
    """
    v, stages, xp, m = layouts.virtual_stages, layouts.pipeline, p.xp, pieces.num_microbatches
    alone = m * (forward_s + backward_s)
    forward_s, backward_s = forward_s + v * p.stack.handoff_s, backward_s + v * p.stack.handoff_s
    embedding_s = pieces.embedding_s
    head_s = sum(pieces.head.forward_s.values()) + sum(pieces.head.backward_s.values())
    times = StageTimes(
        forward_s=forward_s / v, backward_s=backward_s / v, first_forward_s=embedding_s, first_backward_s=embedding_s,
        last_forward_s=head_s / 3.0, last_backward_s=head_s * (2.0 / 3.0), send_s=send_s,
    )  # fmt: skip
    spared_s: Number = 0.0
    if pieces.split.last is not pieces.split.fullest:
        times, spared_s = _lighter_ends(p, pieces, times, forward_s, backward_s)
    forms = {}
    for name in SCHEDULES:
        used = bool(np.any(layouts.schedule == SCHEDULES.index(name)))
        if not used:
            continue
        if p.stack.spmd:
            forms[name] = _spmd_s(name, stages, m, v, times)
        else:
            family = "modular" if name == "layered" else name
            forms[name] = makespan_s(family, stages=stages, microbatches=m, chunks=v, times=times)
    total: Number = 0.0
    for name, seconds in forms.items():
        total = total + xp.where(layouts.schedule == SCHEDULES.index(name), seconds, 0.0)
    return xp.where(stages > 1, total - spared_s, alone + m * (2.0 * embedding_s + head_s))


def _lighter_ends(
    p: Problem, pieces: Parts, times: StageTimes, forward_s: Number, backward_s: Number
) -> tuple[StageTimes, Number]:
    """Times of stages whose first and last hold fewer layers than the fullest, and seconds that fill and drain spare.

    Where an end does less than a middle stage even with its embedding or head, the middle sets the pace, and the
    difference counts once, on the way of the first microbatch in and of the last one out.
    """
    xp, split = p.xp, pieces.split
    extras = {}
    spared_s: Number = 0.0
    for end, own in (("first", split.first), ("last", split.last)):
        missing = 1.0 - own / split.fullest
        ahead = getattr(times, f"{end}_forward_s") - missing * forward_s
        back = getattr(times, f"{end}_backward_s") - missing * backward_s
        lighter = ahead + back < 0.0
        spared_s = spared_s - xp.where(lighter, ahead + back, 0.0)
        extras[f"{end}_forward_s"] = xp.where(lighter, 0.0, ahead)
        extras[f"{end}_backward_s"] = xp.where(lighter, 0.0, back)
    return dataclasses.replace(times, **extras), spared_s


def _spmd_s(name: str, stages: Number, m: Number, v: Number, t: StageTimes) -> Number:
    """All stages tick together, each tick as long as its slowest stage; a stage without work skips it.

    A tick of 1f1b runs the forward pass of one microbatch and the backward pass of another, which starts by repeating
    the stage's forward; ticks that fill run only the former, ticks that drain only the latter.
    """
    extra = t.first_forward_s + t.first_backward_s + t.last_forward_s + t.last_backward_s
    if name in ("1f1b", "zero_bubble"):
        backward_s = t.forward_s + t.backward_s + t.send_s
        return m * (t.forward_s + t.send_s + backward_s + extra) + (stages - 1) * (t.forward_s + t.send_s + backward_s)
    if name == "layered":  # two scans, the second of which repeats the forward of each chunk
        round_units = np.maximum(m, stages)
        busy = (v - 1.0) * round_units + m + stages - 1.0
        ticks = v * round_units + stages - 1.0
        return busy * (2.0 * t.forward_s + t.backward_s) + ticks * 2.0 * t.send_s + m * extra
    rounds = m * v + stages - 1
    return rounds * (t.forward_s + t.backward_s + 2.0 * t.send_s) + m * extra


def _accumulation_s(p: Problem, pieces: Parts, held: StateBytes) -> Number:
    """Add one microbatch's gradients to those of the microbatches before: read both, write the sum."""
    traffic = held.gradients * (2.0 + p.compute_bytes / p.grad_bytes)
    return (pieces.num_microbatches > 1) * traffic / (p.device.hbm_bytes_per_s * p.stack.memory_efficiency)


def optimizer_bytes(p: Problem, elements: Number) -> Number:
    """Memory traffic of the update: read gradient, master weight and state, write weight and state."""
    return elements * (p.grad_bytes + 2.0 * p.master_bytes + 2.0 * p.state_bytes)


def _optimizer_s(p: Problem, layouts: LayoutBatch, elements: Number) -> Number:
    """The update by its memory traffic; offloaded state crosses to the host and back."""
    on_device = optimizer_bytes(p, elements) / (p.device.hbm_bytes_per_s * p.stack.memory_efficiency)
    host = layouts.offload_optimizer * elements * p.state_bytes / p.device.host_bytes_per_s
    return on_device + p.xp.maximum(host, 0.0) * 2.0
