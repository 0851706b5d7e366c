"""What a compile answers: memory by class, FLOPs, collectives and the schedule, or why there is no program."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jaxscale.aot.hlo import Program
from jaxscale.aot.targets import Target
from jaxscale.types import Collective, Estimate, Layout

Status = Literal["compiled", "out_of_memory", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledMemory:
    """Bytes of one device as the compiler allocates them."""

    arguments_bytes: float  # parameters, optimizer state and batch
    outputs_bytes: float  # those that are not aliased to arguments
    temporaries_bytes: float
    code_bytes: float  # NaN where the compiler was stopped before it made code
    aliased_bytes: float  # outputs that take the place of donated arguments
    host_bytes: float  # host memory: offloaded state and activations
    peak_bytes: float  # the most device memory in use at once; arguments included

    @property
    def parts_bytes(self) -> dict[str, float]:
        """Classes that sum to the peak; temporaries are those alive at the peak."""
        live = max(0.0, self.peak_bytes - self.arguments_bytes - self.outputs_bytes)
        held = min(self.peak_bytes, self.arguments_bytes)
        return {"arguments": held, "outputs": max(0.0, self.peak_bytes - held - live), "temporaries": live}


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """One allocation of the program, by the op that makes it."""

    name: str
    num_bytes: float
    type_text: str
    source: str  # the JAX op it comes from; empty for arguments and for the compiler's own


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledStep:
    """One layout's training step as the compiler sees it. Bytes and FLOPs are of one device and step."""

    status: Status
    message: str  # why it failed, or the compiler's words about memory; empty where it compiled
    layout: Layout
    model: str
    cluster: str
    target: Target
    memory: CompiledMemory | None
    memory_limit_bytes: float
    largest_buffers: tuple[Buffer, ...] = ()
    program: Program | None = None
    # temporaries in use while each op of the schedule runs; empty where the compiler does not tell
    live_bytes: Mapping[str, float] = field(default_factory=dict, repr=False)
    clock_hz: float = 0.0
    lower_s: float = 0.0
    compile_s: float = 0.0
    total_s: float = 0.0  # of the compiling process, start to end
    peak_rss_bytes: float = 0.0  # of the compiling process
    versions: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[tuple[str, str], ...] = ()
    hlo_path: str = ""
    cached: bool = False

    @property
    def fits(self) -> bool:
        """Whether it compiled and its peak is within the device's memory."""
        return self.status == "compiled" and self.memory is not None and self.peak_bytes <= self.memory_limit_bytes

    @property
    def peak_bytes(self) -> float:
        """The most device memory in use at once; NaN where the compiler gave none."""
        return self.memory.peak_bytes if self.memory else math.nan

    @property
    def flops(self) -> float:
        """Matmul and kernel FLOPs, recompute included, loops run out."""
        return self.program.flops if self.program else math.nan

    @property
    def collectives(self) -> tuple[Collective, ...]:
        """Every collective, joined by kind, axes, payload and scope."""
        return self.program.collectives if self.program else ()

    @property
    def comm_bytes(self) -> dict[str, float]:
        """Bytes that one device sends, by group of mesh axes."""
        sums: dict[str, float] = {}
        for collective in self.collectives:
            group = "+".join(collective.axes) or "self"
            sums[group] = sums.get(group, 0.0) + collective.wire_bytes
        return sums

    @property
    def cycles_s(self) -> float:
        """The compiler's own cycle estimates as seconds: no collectives and no kernels in it; only a diagnostic."""
        return self.program.cycles / self.clock_hz if self.program and self.clock_hz else math.nan

    def to_estimate(
        self,
        *,
        model_flops: float,
        peak_flops_per_s: float,
        tokens_per_s_per_chip: float = math.nan,
        step_time_s: float = math.nan,
        lower_s: float = math.nan,
        upper_s: float = math.nan,
        time_parts_s: Mapping[str, float] | None = None,
        dollars_per_billion_tokens: float = math.nan,
    ) -> Estimate:
        """The answer as the record that all tiers share; what follows from prices comes from the caller."""
        available_flops = step_time_s * peak_flops_per_s
        return Estimate(
            tier="compiled",
            layout=self.layout,
            step_time_s=step_time_s,
            lower_s=lower_s,
            upper_s=upper_s,
            time_parts_s=dict(time_parts_s or {}),
            memory_bytes=self.peak_bytes,
            memory_limit_bytes=self.memory_limit_bytes,
            memory_parts_bytes=self.memory.parts_bytes if self.memory else {},
            comm_bytes=self.comm_bytes,
            model_flops=model_flops,
            hardware_flops=self.flops,
            mfu=model_flops / available_flops,
            hfu=self.flops / available_flops,
            tokens_per_s_per_chip=tokens_per_s_per_chip,
            dollars_per_billion_tokens=dollars_per_billion_tokens,
            host_memory_bytes=self.memory.host_bytes if self.memory else 0.0,
            reasons=() if self.fits else (self.message or self._does_not_fit(),),
            collectives=self.collectives,
            provenance=dict(self.versions) | {"compiler": self.target.backend, "note": self.target.note},
        )

    def _does_not_fit(self) -> str:
        gib = 2.0**30
        return f"needs {self.peak_bytes / gib:.2f} GiB of {self.memory_limit_bytes / gib:.2f} GiB a device"
