"""What software a published run used, read from the words of its table: framework, kernels, recompute.

Each framework is one row of `FRAMEWORKS`; what a row of a table says about kernels changes the stack's features, never
a constant for the row itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxscale.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """A framework's defaults, where a table leaves a column blank."""

    stack: str  # name of the stack whose constants it runs on
    words: tuple[str, ...]  # what its name in a table contains, lower case
    zero_stage: int
    sequence_parallel: bool
    attention_kernel: str
    fused_norm: bool
    gathers_context: bool = False  # context parallelism all-gathers keys and values instead of a ring
    selective: str = "dots"  # remat policy that "selective" stands for
    reduce_bytes: int = 2  # one gradient element on the wire


# First match wins.
FRAMEWORKS: tuple[Framework, ...] = (
    Framework(stack="torch_titan", words=("torchtitan",), zero_stage=3, sequence_parallel=True,
              attention_kernel="flash2", fused_norm=False, gathers_context=False),
    Framework(stack="torch_fsdp", words=("composer", "fsdp", "llm-foundry"), zero_stage=3, sequence_parallel=False,
              attention_kernel="flash2", fused_norm=True),
    Framework(stack="megatron_core", words=("megatron-core", "megatron-bridge", "nemo"), zero_stage=1,
              sequence_parallel=True, attention_kernel="flash3", fused_norm=True, selective="none", reduce_bytes=4),
    Framework(stack="megatron_aa", words=("aleph alpha",), zero_stage=1, sequence_parallel=False,
              attention_kernel="flash2", fused_norm=False, selective="none", reduce_bytes=4),
    Framework(stack="megatron", words=("megatron",), zero_stage=0, sequence_parallel=False,
              attention_kernel="naive", fused_norm=True, selective="none", reduce_bytes=4),
    Framework(stack="xla", words=("maxtext", "jax", "pax"), zero_stage=3, sequence_parallel=True,
              attention_kernel="flash2", fused_norm=True, gathers_context=True),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """The software of one run."""

    framework: Framework
    attention_kernel: str
    fused_norm: bool
    fused_softmax: bool  # of a naive attention: scale, mask and softmax in one kernel
    compiled: bool  # torch.compile
    async_tensor: bool  # tensor-parallel communication decomposed and overlapped with its matmuls
    rowwise_fp8: bool
    recomputes_scores: bool

    @property
    def zero_stage(self) -> int:
        """What the framework shards where the table does not say."""
        return self.framework.zero_stage

    @property
    def sequence_parallel(self) -> bool:
        """Whether the framework pairs tensor with sequence parallelism where the table does not say."""
        return self.framework.sequence_parallel

    @property
    def gathers_context(self) -> bool:
        """Whether context parallelism gathers keys and values."""
        return self.framework.gathers_context

    def remat(self, row: Mapping[str, Any]) -> str:
        """The remat policy that a table's recompute column means."""
        text = str(row.get("recompute", "none")).lower()
        if text.startswith("full"):
            return "full"
        if "offload" in text:
            return "offload_attention"
        if text.startswith("selective"):
            return self.framework.selective
        if text == "none":
            return "none"
        raise SpecError(f"recompute={text!r} is not one of none, selective, full")

    def pure_bf16(self, row: Mapping[str, Any]) -> bool:
        """Whether parameters, gradients and moments are bf16 too, without a float32 master copy."""
        return "pure bf16" in str(row.get("notes", "")).lower() or str(row.get("precision")) == "bf16_pure"


def software_of(row: Mapping[str, Any]) -> Software:
    """Read the software columns of one row."""
    name = str(row.get("framework", "")).lower()
    framework = next((f for f in FRAMEWORKS if any(word in name for word in f.words)), None)
    if framework is None:
        known = ", ".join(sorted({word for f in FRAMEWORKS for word in f.words}))
        raise SpecError(f"framework={row.get('framework')!r} is not known; a name with one of: {known}")
    kernel = str(row.get("attention_kernel", "")).lower()
    variant = str(row.get("variant", "")).lower()
    return Software(
        framework=framework,
        attention_kernel=_kernel(kernel, framework),
        fused_norm=framework.fused_norm or "rms kernel" in variant,
        fused_softmax="fused" in kernel or "kernel=fused" in variant or not kernel,
        compiled="compile" in variant or "compile" in name or "async" in variant,
        async_tensor="asynctp" in variant,
        rowwise_fp8="rowwise" in variant,
        recomputes_scores=str(row.get("recompute", "")).lower().startswith("selective"),
    )


def _kernel(text: str, framework: Framework) -> str:
    if not text:
        return framework.attention_kernel
    if "splash" in text or "pallas" in text:
        return "splash"
    if "naive" in text or text in ("torch", "fused"):
        return "naive"
    if "cudnn" in text or "flash3" in text:
        return "flash3" if "sdpa" not in text else "flash2"
    if "flash1" in text:
        return "flash1"
    if "flash" in text or "sdpa" in text:
        return "flash2"
    raise SpecError(f"attention_kernel={text!r} is not known; naive, flash1, flash2, flash3, splash, cudnn or sdpa")
