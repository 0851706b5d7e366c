"""The constants that a calibration fits: what each means, what is believed before any measurement, where it applies.

A constant is one field of `Stack` for runs with one feature of their software (an attention kernel, unfused norms).
It is fitted on a scale on which it is unbounded: the logarithm of a positive quantity, the logit of a share. Priors
are normal on that scale; `spread` 0.5 in a logarithm says "within a factor of 1.6, two times out of three".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jaxscale.calibrate.run import Software


def _everywhere(software: Software) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """One fitted constant. `centre` is the prior's median, `spread` its standard deviation on the fitted scale."""

    name: str
    field: str  # of Stack
    scale: Literal["log", "logit"]
    centre: float
    spread: float
    source: str
    part: Literal["time", "memory", "pace"] = "time"
    applies: Callable[[Software], bool] = _everywhere

    def free(self, value: float) -> float:
        """The value on the unbounded scale."""
        return math.log(value) if self.scale == "log" else math.log(value / (1.0 - value))

    def value(self, free: Any, xp: Any = math) -> Any:
        """The value in its unit; `free` may be an array or a tracer of the namespace `xp`."""
        return xp.exp(free) if self.scale == "log" else 1.0 / (1.0 + xp.exp(-free))


def _kernel(name: str, *, fused_softmax: bool | None = None) -> Callable[[Software], bool]:
    def applies(software: Software) -> bool:
        fits = fused_softmax is None or software.fused_softmax == fused_softmax
        return software.attention_kernel == name and fits

    return applies


def _share(name: str, field: str, centre: float, spread: float, source: str, applies=_everywhere) -> Constant:
    return Constant(name=name, field=field, scale="logit", centre=centre, spread=spread, source=source, applies=applies)


def _scale(
    name: str, field: str, centre: float, spread: float, source: str, applies=_everywhere, part: Any = "time"
) -> Constant:
    return Constant(
        name=name, field=field, scale="log", centre=centre, spread=spread, source=source, applies=applies, part=part
    )


def _eager(software: Software) -> bool:
    return not software.stack.startswith("xla")


def _fused(software: Software) -> bool:
    return software.attention_kernel != "naive"


def _tensor_async(software: Software) -> bool:
    return software.async_tensor


_FA = "FlashAttention-2, arXiv 2307.08691, figures 4-6"
_SHEET = "large copies reach 75-90% of the sheet's bandwidth (STREAM-like tests)"
_NCCL = "nccl-tests: bus bandwidth of large messages, 70-90% of the links"
_EAGER = "count of reads and writes of an eager implementation over those of one fused pass"
_FUSED = "one fused kernel; a few extra bytes of statistics"

COMPUTE: tuple[Constant, ...] = (
    _share("matmul_efficiency", "matmul_efficiency", 0.76, 0.4, "cuBLAS, XLA: 70-90% of peak at 8192 cubed",
           lambda s: s.matmul != "fp8"),
    _share("matmul_efficiency_fp8", "matmul_efficiency", 0.66, 0.4, "cuBLASLt fp8 on H100: 60-75%",
           lambda s: s.matmul == "fp8" and not s.rowwise_fp8),
    _share("matmul_efficiency_fp8_rowwise", "matmul_efficiency", 0.40, 0.4, "slower kernels, and a pass for row scales",
           lambda s: s.matmul == "fp8" and s.rowwise_fp8),
    _scale("matmul_k_half", "matmul_k_half", 100.0, 0.6, "pipeline fill of a 128 x 128 output tile"),
    _share("tile_quantisation", "tile_quantisation", 0.4, 1.0, "between none and all of a partly filled wave"),
    _share("attention_flash1", "attention_efficiency", 0.35, 0.4, _FA, _kernel("flash1")),
    _share("attention_flash2", "attention_efficiency", 0.68, 0.3, _FA, _kernel("flash2")),
    _share("attention_flash3", "attention_efficiency", 0.60, 0.3, "FA3, arXiv 2407.08608", _kernel("flash3")),
    _share("attention_splash", "attention_efficiency", 0.55, 0.5, "reaches about half of peak", _kernel("splash")),
    _scale("attention_head_half", "attention_head_half", 32.0, 0.7, "FA2: head 64 reaches 80-90% of head 128",
           _fused),
    _scale("score_passes", "score_passes", 9.0, 0.4, _EAGER, _kernel("naive", fused_softmax=False)),
    _scale("score_passes_fused", "score_passes", 4.5, 0.4, _EAGER, _kernel("naive", fused_softmax=True)),
    _share("ring_efficiency", "ring_efficiency", 0.85, 0.5, "smaller blocks, partial results merged", _fused),
    _share("memory_efficiency", "memory_efficiency", 0.80, 0.25, _SHEET),
    _scale("elementwise_passes", "elementwise_passes", 1.7, 0.5, _EAGER, lambda s: not s.fused_elementwise),
    _scale("elementwise_passes_fused", "elementwise_passes", 1.2, 0.3, _FUSED, lambda s: s.fused_elementwise),
    _scale("activation_passes", "activation_passes", 2.0, 0.4, _EAGER, lambda s: not s.fused_elementwise),
    _scale("activation_passes_fused", "activation_passes", 1.2, 0.3, _FUSED, lambda s: s.fused_elementwise),
    _scale("cast_passes", "cast_passes", 2.0, 0.5, "read in bf16, write in fp8 as it is and transposed: 4 bytes for 2",
           lambda s: s.matmul == "fp8" and not s.rowwise_fp8),
    _scale("cast_passes_rowwise", "cast_passes", 4.0, 0.5, "two scales, a row's and a column's: two passes each",
           lambda s: s.matmul == "fp8" and s.rowwise_fp8),
    _scale("norm_passes", "norm_passes", 9.0, 0.4, _EAGER, lambda s: not s.fused_norm),
    _scale("norm_passes_fused", "norm_passes", 1.2, 0.3, _FUSED, lambda s: s.fused_norm),
    _scale("kernel_gap_s", "kernel_gap_s", 4e-6, 0.6, "2-10 us between kernels of one CUDA stream"),
    _scale("layer_dispatch_s", "layer_dispatch_s", 3e-4, 0.6, "Python of an eager layer: a few hundred us",
           lambda s: not s.fused_elementwise),
    _scale("layer_dispatch_fused_s", "layer_dispatch_s", 5e-5, 0.7, "a compiled layer launches fewer, larger kernels",
           lambda s: s.fused_elementwise),
)  # fmt: skip
COMMUNICATION: tuple[Constant, ...] = (
    _share("collective_efficiency", "collective_efficiency", 0.75, 0.4, _NCCL),
    _scale("collective_latency_s", "collective_latency_s", 1.5e-5, 0.5, "nccl-tests: 10-30 us for a small message"),
    _share("outer_efficiency", "outer_efficiency", 0.65, 0.7, _NCCL),
    _scale("outer_scaling", "outer_scaling", 0.08, 0.8, "congestion of a fat tree: a few per cent for every doubling"),
    _share("fsdp_overlap", "fsdp_overlap", 0.85, 0.8, "prefetch of the next layer, reduction behind backward"),
    _share("data_overlap", "data_overlap", 0.30, 1.0, "gradient reduction at the end of the step, partly overlapped"),
    _share("tensor_overlap", "tensor_overlap", 0.05, 0.8, "exposed unless decomposed", lambda s: not s.async_tensor),
    _share("tensor_overlap_async", "tensor_overlap", 0.60, 0.8, "decomposed matmuls, arXiv 2302.05175", _tensor_async),
    _share("context_overlap", "context_overlap", 0.50, 1.0, "ring attention hides transfers behind blocks"),
    _share("expert_overlap", "expert_overlap", 0.10, 0.8, "exposed unless the schedule interleaves microbatches"),
    _share("pipeline_overlap", "pipeline_overlap", 0.40, 1.0, "sends may wait for the receiver's compute"),
    _scale("handoff_s", "handoff_s", 1e-3, 1.0, "a blocking send or receive drains the queue of launched kernels",
           _eager),
    _scale("overlap_slowdown", "overlap_slowdown", 0.10, 0.5, "communication kernels take a few SMs and HBM bandwidth"),
    _scale("microbatch_overhead_s", "microbatch_overhead_s", 2e-3, 0.7, "data loading, loss and schedule on the host"),
    _scale("straggler_frac", "straggler_frac", 3e-3, 0.5, "clocks differ by 1-3% between chips"),
    _scale("step_overhead_s", "step_overhead_s", 3e-2, 0.7, "gradient norm, logging and data on the host"),
)  # fmt: skip
# The XLA compiler states the memory of its own programs (`jaxscale.aot`): these are of eager frameworks.
MEMORY: tuple[Constant, ...] = (
    _scale("reserved_bytes", "reserved_bytes", 2.5e9, 0.5, "CUDA context, NCCL buffers, workspaces", _eager, "memory"),
    _scale("fragmentation_frac", "fragmentation_frac", 0.05, 0.7, "reserved over allocated memory", _eager,
           "memory"),
    Constant(name="saved_frac_fp8", field="saved_frac", scale="logit", centre=0.75, spread=0.5, part="memory",
             source="inputs of linear layers kept in fp8 (Transformer Engine): half the bytes of half the tensors",
             applies=lambda s: _eager(s) and s.matmul == "fp8"),
    _scale("norm_saved_bytes", "norm_saved_bytes", 8.0, 0.4, "float32 copies in an eager RMSNorm",
           lambda s: _eager(s) and not s.fused_norm and not s.fused_elementwise, "memory"),
    _scale("activation_saved", "activation_saved", 1.0, 0.3, "eager SwiGLU keeps silu(gate) too",
           lambda s: _eager(s) and s.gated and not s.fused_elementwise, "memory"),
    _scale("logit_copies", "logit_copies", 2.0, 0.4, "eager float32 logits, softmax, gradients", _eager, "memory"),
    _scale("score_saved_bytes", "score_saved_bytes", 5.0, 0.4, "softmax, mask, dropout: arXiv 2205.05198, eq. 1",
           lambda s: _eager(s) and s.attention_kernel == "naive" and not s.score_recompute, "memory"),
)  # fmt: skip
# Not fitted beside the others, of which it is a mixture: what a few runs on one cluster can tell (`own_runs`).
PACE: tuple[Constant, ...] = (
    _scale("pace", "pace", 1.0, 0.08, "the same job on two clusters of one chip: 5-10% apart", part="pace"),
)  # fmt: skip
CONSTANTS: tuple[Constant, ...] = (*COMPUTE, *COMMUNICATION, *MEMORY, *PACE)


def constant_named(name: str) -> Constant | None:
    """Look a constant up by name."""
    return next((constant for constant in CONSTANTS if constant.name == name), None)
