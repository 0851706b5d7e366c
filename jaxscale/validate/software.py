"""What software a published run used, read from the words of its table: framework, kernels, recompute.

Each framework is one row of `FRAMEWORKS`; what a row of a table says about kernels changes the software's features,
never a constant for the row itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxscale.calibrate import Software, chip_generation
from jaxscale.calibrate.generations import GENERATIONS
from jaxscale.errors import SpecError
from jaxscale.types import own_remat


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """A framework's defaults, where a table leaves a column blank."""

    stack: str  # name of the stack whose constants it runs on
    words: tuple[str, ...]  # what its name in a table contains, lower case
    zero_stage: int
    sequence_parallel: bool
    attention_kernel: str
    fused_norm: bool
    fused_elementwise: bool = False
    gathers_context: bool = False  # context parallelism all-gathers keys and values instead of a ring
    selective: str = "dots"  # remat policy that "selective" stands for
    reduce_bytes: int = 2  # one gradient element on the wire
    grad_bytes: int = 4  # one gradient element kept until the optimizer's step
    keeps_gathered: bool = False  # under pipelining, FSDP gathers once a step and keeps the weights
    microbatch_a_stage: bool = False  # where a table states no microbatch: as many microbatches as pipeline stages
    names_engine: bool = False  # says so where it runs on Transformer Engine


MEGATRON_CORE_YEAR = 2022  # Hopper

# First match wins; the last one takes every other framework on a GPU.
FRAMEWORKS: tuple[Framework, ...] = (
    Framework(stack="torch_titan", words=("torchtitan",), zero_stage=3, sequence_parallel=True,
              attention_kernel="flash2", fused_norm=False, keeps_gathered=True, microbatch_a_stage=True,
              selective=own_remat(("q", "v", "attention", "mlp_gate"))),  # every other matmul, and the attention core
    Framework(stack="torch_fsdp", words=("composer", "mosaic", "fsdp", "llm-foundry"), zero_stage=3,
              sequence_parallel=False, attention_kernel="flash2", fused_norm=True),
    Framework(stack="megatron_core", words=("megatron-core", "megatron core", "mcore", "megatron-bridge", "nemo"),
              zero_stage=1, sequence_parallel=True, attention_kernel="flash3", fused_norm=True, selective="none",
              reduce_bytes=4),
    Framework(stack="megatron_aa", words=("aleph alpha",), zero_stage=1, sequence_parallel=False,
              attention_kernel="flash2", fused_norm=False, selective="none", reduce_bytes=4, grad_bytes=2),
    Framework(stack="megatron_deepspeed", words=("megatron-deepspeed",), zero_stage=0, sequence_parallel=False,
              attention_kernel="naive", fused_norm=True, selective="none", reduce_bytes=2),
    Framework(stack="megatron_deepspeed", words=("neox",), zero_stage=1, sequence_parallel=False,
              attention_kernel="naive", fused_norm=True, selective="none", reduce_bytes=2),
    Framework(stack="megatron", words=("megatron",), zero_stage=0, sequence_parallel=False,
              attention_kernel="naive", fused_norm=True, selective="none", reduce_bytes=4),
    Framework(stack="xla", words=("pax",), zero_stage=3, sequence_parallel=True, attention_kernel="flash2",
              fused_norm=True, fused_elementwise=True, gathers_context=True, names_engine=True),
    Framework(stack="xla", words=("maxtext", "jax", "levanter", "easydel", "t5x", "flax", "axlearn", "praxis"),
              zero_stage=3, sequence_parallel=True, attention_kernel="flash2", fused_norm=True, fused_elementwise=True,
              gathers_context=True),
    Framework(stack="torch", words=("",), zero_stage=1, sequence_parallel=False, attention_kernel="flash2",
              fused_norm=True, selective="none"),
)  # fmt: skip


def framework_of(row: Mapping[str, Any]) -> Framework:
    """Find the framework of a row by the words of its name."""
    name = str(row.get("framework", "")).lower()
    found = next(f for f in FRAMEWORKS if any(word in name for word in f.words))
    chip = GENERATIONS.get(chip_generation(str(row.get("hardware", "")).lower()))
    # Megatron-LM has run on Megatron-Core and its fused kernels since before there were chips of that year.
    if found.stack == "megatron" and chip is not None and chip.year >= MEGATRON_CORE_YEAR:
        return next(f for f in FRAMEWORKS if f.stack == "megatron_core")
    return found


def software_of(row: Mapping[str, Any], framework: Framework, chip_kind: str, matmul: str) -> Software:
    """Read the features of one row's software."""
    name = str(row.get("framework", "")).lower()
    kernel = str(row.get("attention_kernel", "")).lower()
    variant = str(row.get("variant", "")).lower()
    compiled = "compile" in variant or "compile" in name or "async" in variant
    engine = "transformerengine" in name.replace(" ", "")
    default = "splash" if chip_kind == "tpu" else framework.attention_kernel
    if framework.names_engine and "te/" in kernel and not engine:
        kernel = "naive"  # what the engine's kernels replace
    return Software(
        stack=f"xla_{chip_kind}" if framework.stack == "xla" or chip_kind == "tpu" else framework.stack,
        matmul=matmul,
        attention_kernel=_kernel(kernel, default),
        fused_norm=framework.fused_norm or compiled or "rms kernel" in variant,
        fused_softmax="fused" in kernel or not kernel or engine,
        fused_elementwise=framework.fused_elementwise or compiled,
        async_tensor="asynctp" in variant or chip_kind == "tpu",  # XLA decomposes sharded matmuls on a TPU
        rowwise_fp8="rowwise" in variant,
        gated=str(row.get("mlp_type", "")).lower() in ("swiglu", "geglu"),
        score_recompute=recompute_words(row).startswith("selective") and framework.selective == "none",
    )


def recompute_words(row: Mapping[str, Any]) -> str:
    """What a table's recompute column says, lower case; blank is none."""
    return str(row.get("recompute", "none")).strip().lower()


def remat_of(row: Mapping[str, Any], framework: Framework) -> str:
    """The remat policy that a table's recompute column means."""
    text = recompute_words(row)
    if text.startswith("full"):
        return "full"
    if "offload" in text:
        return "offload_attention"
    if text.startswith("selective"):
        return framework.selective
    if text == "none":
        return "none"
    raise SpecError(f"recompute={text!r} is not one of none, selective, full")


def pure_bf16(row: Mapping[str, Any]) -> bool:
    """Whether parameters, gradients and moments are bf16 too, without a float32 master copy."""
    return "pure bf16" in str(row.get("notes", "")).lower() or str(row.get("precision")) == "bf16_pure"


def _kernel(text: str, default: str) -> str:
    if not text:
        return default
    if "splash" in text or "pallas" in text:
        return "splash"
    if "naive" in text or text in ("torch", "fused", "eager"):
        return "naive"
    if "cudnn" in text or "flash3" in text:
        return "flash3" if "sdpa" not in text else "flash2"
    if "flash1" in text:
        return "flash1"
    if "flash" in text or "sdpa" in text:
        return "flash2"
    raise SpecError(f"attention_kernel={text!r} is not known; naive, flash1, flash2, flash3, splash, cudnn or sdpa")
