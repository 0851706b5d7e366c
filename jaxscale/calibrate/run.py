"""One measured run, and the features of the software it ran on that select constants of a stack."""

from dataclasses import dataclass

from jaxscale.types import Cluster, Layout, ModelShape, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """A software stack by name, and which of its kernels a run used.

    Features are what a table of runs or a user can tell; each selects constants (see `constants.py`). None depends on
    a model, a layout or a source.
    """

    stack: str
    matmul: str = "bf16"  # format of the matmuls: bf16 (also fp16), fp8, fp32
    attention_kernel: str = "flash2"
    fused_norm: bool = True
    fused_softmax: bool = True  # of a naive attention: scale, mask and softmax in one kernel
    fused_elementwise: bool = False  # a compiler joins element-wise ops (XLA, torch.compile)
    async_tensor: bool = False  # tensor-parallel communication decomposed and run beside its matmuls
    rowwise_fp8: bool = False  # one scale a row instead of one a tensor
    gated: bool = True  # the MLP has a gate, as SwiGLU does
    score_recompute: bool = False  # selective recompute of the attention core (arXiv 2205.05198)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measured run. `step_time_s`, `peak_memory_bytes` and `mfu_reported` are NaN where they were not measured."""

    id: str
    group: str  # source
    family: str  # sweep of one source
    shape: ModelShape
    workload: Workload
    cluster: Cluster
    layout: Layout
    software: Software
    outcome: str  # ok, oom, other_error
    step_time_s: float
    peak_memory_bytes: float
    mfu_reported: float
    mfu_note: str  # how the source counts FLOPs, in its words
    weight: float  # so that no family counts for more than its share
    comparable: str  # runs with the same value differ in layout and kernels only

    @property
    def chip(self) -> str:
        """Generation of the chip: the first word of its catalogue name, such as a100 or v5e."""
        return chip_generation(self.cluster.chip.name)

    @property
    def num_microbatches(self) -> int:
        """Microbatches that one replica runs in a step."""
        return self.layout.num_microbatches(self.workload.global_batch_size)


def chip_generation(chip_name: str) -> str:
    """Generation of a chip: variants of one chip that differ in memory or socket share kernels and so constants.

    >>> chip_generation("a100-sxm-80gb"), chip_generation("tpu-v5e"), chip_generation("tpu7x")
    ('a100', 'v5e', 'tpu7x')
    """
    return chip_name.removeprefix("tpu-").split("-")[0]
