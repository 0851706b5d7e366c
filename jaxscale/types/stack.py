"""What software it runs on: how near its kernels come to the hardware, what it hides, what it adds.

A `Stack` holds the constants that depend on the kernels and the framework, not on a model, a layout or a run. Each has
a physical meaning and a unit and can be fitted to measurements (`jaxscale.calibrate`); the defaults are priors.
"""

from dataclasses import dataclass
from typing import Literal

from jaxscale.errors import SpecError
from jaxscale.types._check import require_choice, require_positive

AttentionKernel = Literal["naive", "flash1", "flash2", "flash3", "splash"]
ATTENTION_KERNELS: tuple[str, ...] = ("naive", "flash1", "flash2", "flash3", "splash")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A software stack as constants. Fractions are of the vendor's peak; `*_overlap` is the share that can hide."""

    name: str
    # Compute
    matmul_efficiency: float = 0.85  # a large square matmul, of peak FLOP/s
    matmul_k_half: float = 128.0  # contraction length at which a matmul reaches half of that
    tile_quantisation: float = 0.5  # 0: partly filled waves and tiles cost nothing; 1: as much as full ones
    attention_kernel: AttentionKernel = "flash2"
    attention_efficiency: float = 0.55  # fused attention forward, of peak FLOP/s at head_dim 128
    attention_backward_ratio: float = 0.8  # its backward's efficiency relative to its forward's
    attention_head_half: float = 32.0  # head width at which it reaches half of what very wide heads would
    score_passes: float = 4.0  # times that a naive attention's scores cross memory in the forward pass
    memory_efficiency: float = 0.8  # of HBM bytes/s, in element-wise passes
    elementwise_passes: float = 1.0  # memory traffic relative to one fused pass an op
    norm_passes: float = 1.0  # the same for norms (an unfused RMSNorm casts, squares, averages, scales)
    activation_passes: float = 1.0  # the same for the MLP's activation
    cast_passes: float = 0.0  # fp8: memory traffic of scaling and rounding a matmul's input, relative to reading it
    weight_passes: float = 0.0  # times a device's weights cross memory a microbatch to be cut out and summed up
    saved_passes: float = 0.0  # the same of what is kept for the backward pass, for every loop that stacks it
    kernel_gap_s: float = 0.0  # device idle between two kernels
    layer_dispatch_s: float = 0.0  # host time to launch one layer's forward; counts where the device waits for it
    # Communication
    collective_efficiency: float = 0.8  # bus bandwidth of a large collective, of the link's, inside a node or slice
    outer_efficiency: float = 0.8  # the same between nodes or slices
    outer_scaling: float = 0.0  # congestion: bandwidth between nodes falls as (nodes of a group) ** -outer_scaling
    collective_latency_s: float = 5e-6  # start of one collective
    fsdp_overlap: float = 0.9
    data_overlap: float = 0.8
    tensor_overlap: float = 0.0
    context_overlap: float = 0.8
    expert_overlap: float = 0.0
    pipeline_overlap: float = 0.5
    host_overlap: float = 0.9  # copies of offloaded activations
    overlap_slowdown: float = 0.1  # compute lost per second of communication hidden behind it
    ring_efficiency: float = 1.0  # attention over blocks of a ring of context ranks, relative to the whole sequence
    handoff_s: float = 0.0  # host and device wait for each other around a send between pipeline stages
    # Whole step
    pace: float = 1.0  # of every second of the step, relative to the cluster that the other constants are of
    step_overhead_s: float = 0.0
    microbatch_overhead_s: float = 0.0
    straggler_frac: float = 0.0  # compute time lost for every doubling of the devices that wait for each other
    # Memory
    reserved_bytes: float = 0.0  # context and workspace outside the program's own buffers
    fragmentation_frac: float = 0.0  # of activations, lost between blocks of the allocator
    saved_frac: float = 1.0  # of the bytes of saved activations at compute precision (fp8 kernels keep fp8 inputs)
    norm_saved_bytes: float = 0.0  # per element of a norm's input, kept beside it for backward (float32 copies)
    activation_saved: float = 0.0  # elements per element of the MLP's width, kept beside gate, up and product
    logit_copies: float = 1.0  # float32 copies of the logits alive in the backward pass of the loss
    score_saved_bytes: float = 0.0  # per score of a naive attention, kept for backward
    # Habits of a framework, read from its code
    gathered_logits: float = 0.0  # 1: every tensor-parallel rank holds all logits; 0: its share of the vocabulary
    modules_before: float = 0.0  # modules ahead of the layers (embedding), where stages get equal numbers of modules
    modules_after: float = 0.0  # those behind the layers (norm, head); both 0: stages get equal numbers of layers
    whole_recompute: float = 0.0  # 1: full remat repeats a layer to its end, though nothing needs its output
    score_recompute: float = 0.0  # 1: the attention core runs once more in the backward pass
    whole_reduction: float = 0.0  # 1: gradients are summed whole on every rank, though the optimizer's state is split
    split_dispatch: float = 0.0  # 1: a token is sent to experts by one tensor rank, and once to every node
    spmd: bool = True  # one program for all pipeline stages (XLA); False: stages hold only what they use (torch)
    sigma_log: float = 0.12  # standard deviation of log(measured / predicted step time)
    source: str = ""

    def __post_init__(self) -> None:
        owner = f"stack {self.name!r}"
        require_choice(owner, allowed=ATTENTION_KERNELS, attention_kernel=self.attention_kernel)
        fractions = (
            "matmul_efficiency", "attention_efficiency", "memory_efficiency", "collective_efficiency",
            "outer_efficiency", "sigma_log",
        )  # fmt: skip
        require_positive(owner, **{name: getattr(self, name) for name in fractions})
        shares = [f for f in self.__slots__ if f.endswith("_overlap")]
        for field in (*fractions[:5], *shares, "tile_quantisation"):
            if not 0 <= getattr(self, field) <= 1:
                raise SpecError(f"{owner}: {field}={getattr(self, field)} must be between 0 and 1")


XLA_TPU = Stack(
    name="xla_tpu",
    matmul_efficiency=0.80,
    matmul_k_half=32.0,
    attention_kernel="splash",
    attention_efficiency=0.50,
    elementwise_passes=1.2,
    collective_latency_s=2e-6,
    logit_copies=0.0,  # in bf16: the loss reads them in float32 inside fused passes, and so does their gradient
    source="prior: XLA's estimated cycles of an 8192-cubed bf16 matmul (70-90% of peak), splash attention about half",
)
XLA_GPU = Stack(
    name="xla_gpu",
    matmul_efficiency=0.78,
    attention_kernel="flash2",
    attention_efficiency=0.55,
    kernel_gap_s=2e-6,
    logit_copies=0.5,
    reserved_bytes=1.0e9,
    source="prior: cuBLAS reaches 75-80% of the dense peak under a power cap",
)
XLA_CPU = Stack(
    name="xla_cpu",
    matmul_efficiency=0.5,
    matmul_k_half=8.0,
    attention_kernel="naive",
    attention_efficiency=0.3,
    kernel_gap_s=5e-6,
    elementwise_passes=2.0,
    collective_latency_s=5e-5,
    fsdp_overlap=0.0,
    data_overlap=0.0,
    context_overlap=0.0,
    pipeline_overlap=0.0,
    source="prior: emulated devices share the cores of one machine, whose matmuls are as fast at a contraction of 64 "
    "as of 512; use `jaxscale probe` for real figures",
)
STACKS: dict[str, Stack] = {stack.name: stack for stack in (XLA_TPU, XLA_GPU, XLA_CPU)}


def default_stack(chip_kind: str) -> Stack:
    """Return the stack that jaxscale's own training step runs on."""
    return {"tpu": XLA_TPU, "gpu": XLA_GPU, "cpu": XLA_CPU}[chip_kind]
