"""A compiled step as an `Estimate`: the schedule is the compiler's, the prices of its ops are the cost model's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxscale.aot.assemble import COMPUTE, AssembledTime, Prices, Replayed, assemble, replay
from jaxscale.aot.hlo import CollectiveCall, ScheduledOp
from jaxscale.aot.request import CompileRequest
from jaxscale.aot.result import CompiledStep
from jaxscale.cost import metrics
from jaxscale.cost.compute import matmul_s, visible_tokens
from jaxscale.cost.parallel import Network, network
from jaxscale.cost.problem import Problem, problem
from jaxscale.cost.timeline import overhead_s, stragglers_s
from jaxscale.errors import SpecError
from jaxscale.types import Cluster, Estimate, Layout, LayoutBatch, ModelShape, Stack, Workload

if TYPE_CHECKING:
    from jaxscale.report.trace import CounterSample


@dataclass(frozen=True, slots=True, kw_only=True)
class OpPrices:
    """The cost model's rates, for ops that a compiler made."""

    p: Problem
    net: Network

    def op_s(self, op: ScheduledOp) -> float:
        """The longer of an op's FLOPs at the rate its matmuls reach and its bytes at the memory's speed."""
        p = self.p
        compute_s = sum(float(matmul_s(p, m.groups, m.m, m.k, m.n)) for m in op.matmuls)
        if op.is_kernel:
            compute_s += op.flops * self.visible_share / (p.device.attention_flops_per_s * self._kernel_efficiency(op))
        memory_s = op.device_bytes / (p.device.hbm_bytes_per_s * p.stack.memory_efficiency)
        return float(max(compute_s, memory_s)) + p.stack.kernel_gap_s

    @property
    def visible_share(self) -> float:
        """Share of the pairs of query and key that a causal kernel computes; its FLOPs count all of them."""
        return float(visible_tokens(self.p, causal=True) / visible_tokens(self.p, causal=False))

    def _kernel_efficiency(self, op: ScheduledOp) -> float:
        """Share of peak that a fused attention kernel reaches, forward or backward."""
        stack = self.p.stack
        backward = stack.attention_backward_ratio if "transpose(" in op.source else 1.0
        return stack.attention_efficiency * backward

    def collective_s(self, call: CollectiveCall) -> float:
        """One collective on the network levels that its axes lie on."""
        if not call.axes or call.kind == "collective-broadcast":
            return 0.0
        priced = self.net.exchange(call.kind, call.kind, "data", call.axes, "step", call.payload_bytes, 1.0)
        return float(priced.seconds[0])

    def host_s(self, num_bytes: float) -> float:
        """A transfer between device and host memory."""
        return num_bytes / self.p.device.host_bytes_per_s


def step_prices(step: CompiledStep, p: Problem) -> Prices:
    """The cost model's prices for a step's ops."""
    prices = OpPrices(p=p, net=network(p, LayoutBatch.from_layouts([step.layout])))
    return Prices(op_s=prices.op_s, collective_s=prices.collective_s, host_s=prices.host_s)


def assembled_time(step: CompiledStep, p: Problem) -> AssembledTime | None:
    """The time of a compiled step's schedule; None where the step has none.

    Beside what the schedule runs it has the seconds that the cost model knows of no op: memory traffic of hidden
    collectives, the start of a step and of its microbatches, and stragglers.
    """
    if step.program is None or step.status != "compiled":
        return None
    time = assemble(step.program, step_prices(step, p))
    return time.beside(_other_s(p, step.layout, time))


def _other_s(p: Problem, layout: Layout, time: AssembledTime) -> dict[str, float]:
    """Seconds of no op, as `cost.timeline` has them."""
    others = {
        "contention": float(time.hidden_s * p.stack.overlap_slowdown),
        "overhead": float(overhead_s(p, layout.num_microbatches(p.global_batch_size))),
        "stragglers": float(stragglers_s(p, time.total_s)),
    }
    whole_s = time.total_s + sum(others.values())
    return others | {"pace": whole_s * (float(p.stack.pace) - 1.0)}


def compiled_trace(step: CompiledStep, shape: ModelShape, workload: Workload, cluster: Cluster) -> str:
    """The compiled schedule on a time axis, for ui.perfetto.dev; of each loop two trips are drawn in full.

    Memory is that of a device of any stage, as all run one program; there is none where the compiler did not say when
    its buffers are alive.
    """
    from jaxscale.report.trace import TraceRecord, counter_events, events_json, record_events

    assert step.program is not None, "callers ask for the trace of a compiled step"
    drawn = replay(step.program, step_prices(step, problem(shape, workload, cluster)))
    records = [
        TraceRecord(f"{s.name} {s.detail}".strip(), s.track, s.begin_s, s.end_s - s.begin_s)
        for s in sorted(drawn.slices, key=lambda s: s.track != COMPUTE)
    ]
    return events_json([*record_events(records), *counter_events(_memory_samples(step, drawn))])


def _memory_samples(step: CompiledStep, drawn: Replayed) -> "list[CounterSample]":
    """Device memory over time; its highest value is the reported peak.

    Beside the temporaries there is all the time what the peak holds more than they do at most: arguments, outputs and
    (on CPUs, where the peak is the sum of whole allocations) the gaps between temporaries.
    """
    from jaxscale.report.trace import CounterSample, memory_counter

    if not step.live_bytes:
        return []
    resident = step.peak_bytes - max(step.live_bytes.values())
    samples = [CounterSample(memory_counter(0), 0.0, resident)]
    for at_s, op in drawn.begins:
        if op in step.live_bytes:
            samples.append(CounterSample(memory_counter(0), at_s, resident + step.live_bytes[op]))
    return _without_repeats(samples)


def _without_repeats(samples: "list[CounterSample]") -> "list[CounterSample]":
    """The samples that change the value; of several at one time, the highest."""
    kept: list[CounterSample] = []
    for sample in samples:
        if kept and sample.time_s == kept[-1].time_s:
            kept[-1] = max(kept[-1], sample, key=lambda s: s.value)
        elif not kept or sample.value != kept[-1].value:
            kept.append(sample)
    return kept


def compiled_estimate(
    step: CompiledStep,
    shape: ModelShape,
    workload: Workload,
    cluster: Cluster,
    stack: Stack | None = None,
) -> Estimate:
    """The record of tier "compiled" for a step; its times are NaN where it did not compile."""
    p = problem(shape, workload, cluster, stack)
    peak = float(p.device.peak_flops_per_s)
    model_flops = float(p.tokens_per_step * metrics.model_flops_per_token(p)) / cluster.num_devices
    time = assembled_time(step, p)
    if time is None:
        return step.to_estimate(model_flops=model_flops, peak_flops_per_s=peak)
    parts = {"compute": time.compute_s}
    parts |= {name: seconds for name, seconds in (time.exposed_s | time.other_s).items() if seconds}
    return step.to_estimate(
        model_flops=model_flops,
        peak_flops_per_s=peak,
        step_time_s=time.total_s,
        lower_s=time.lower_s,
        upper_s=time.upper_s,
        time_parts_s=parts,
        tokens_per_s_per_chip=float(metrics.tokens_per_s_per_chip(p, time.total_s)),
        dollars_per_billion_tokens=float(metrics.dollars_per_billion_tokens(p, time.total_s)),
    )


def compile_request(
    shape: ModelShape,
    workload: Workload,
    cluster: Cluster,
    layout: Layout,
    *,
    flags: tuple[str, ...] = (),
    dump: str = "",
    quick: bool = False,
) -> CompileRequest:
    """A request from what a command line says; flags are written `name=value`."""
    pairs = []
    for flag in flags:
        name, separator, value = flag.removeprefix("--").partition("=")
        if not separator or not name:
            raise SpecError(
                f"--flag: {flag!r} is not written as name=value, such as xla_tpu_scoped_vmem_limit_kib=65536"
            )
        pairs.append((name, value))
    return CompileRequest(
        shape=shape,
        workload=workload,
        layout=layout,
        cluster=cluster,
        flags=tuple(pairs),
        dump_dir=dump,
        quick=quick,
    )
