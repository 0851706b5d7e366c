"""A DeepSpeed configuration (JSON) -> workload and layout; the model lives in the training script."""

import json

from jaxscale.errors import SpecError
from jaxscale.export.result import Imported
from jaxscale.export.write_deepspeed import OPTIMIZERS
from jaxscale.types import Layout, Workload, optimizer_named, precision_named
from jaxscale.types.layout import ZERO_STAGES

KNOWN = (
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "zero_optimization", "bf16",
    "fp16", "data_types", "optimizer", "tensor_parallel", "sequence_parallel_size", "activation_checkpointing",
    "zero_allow_untested_optimizer",
)  # fmt: skip


def read_deepspeed(text: str, *, num_devices: int, seq_len: int) -> Imported:
    """Read what `deepspeed()` writes, and files by hand; devices beyond the batch's ranks must be named in the file."""
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(f"DeepSpeed JSON: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise SpecError("DeepSpeed JSON: must be an object")
    zero = _section(config, "zero_optimization")
    tensor = _count(_section(config, "tensor_parallel"), "autotp_size", 1)
    context = _count(config, "sequence_parallel_size", 1)
    ranks, left = divmod(num_devices, tensor * context)
    if left:
        raise SpecError(
            f"DeepSpeed JSON: autotp_size={tensor} x sequence_parallel_size={context} does not divide "
            f"{num_devices} devices"
        )
    micro = _count(config, "train_micro_batch_size_per_gpu", 1)
    steps = _count(config, "gradient_accumulation_steps", 1)
    batch = _count(config, "train_batch_size", micro * steps * ranks)
    if batch != micro * steps * ranks:
        raise SpecError(
            f"DeepSpeed JSON: train_batch_size={batch} is not train_micro_batch_size_per_gpu={micro} x "
            f"gradient_accumulation_steps={steps} x {ranks} data-parallel ranks"
        )
    stage = _count(zero, "stage", 0, minimum=0)
    if str(stage) not in ZERO_STAGES:
        raise SpecError(f"DeepSpeed JSON: zero_optimization.stage={stage} is not one of {', '.join(ZERO_STAGES)}")
    shards = _shards(zero, stage, ranks, context)
    params, grads, optimizer = ZERO_STAGES[str(stage)]
    layout = Layout(
        data=ranks // shards, fsdp=shards, context=context, tensor=tensor, microbatch_size=micro, params_shard=params,
        grads_shard=grads, optimizer_shard=optimizer, offload_optimizer="offload_optimizer" in zero, remat="none",
    )  # fmt: skip
    workload = Workload(
        seq_len=seq_len, global_batch_size=batch, precision=precision_named(_precision(config)),
        optimizer=optimizer_named(_optimizer(config)),
    )  # fmt: skip
    notes = tuple(
        f"{key} has no bearing on the prediction, or is not understood." for key in config if key not in KNOWN
    )
    remat = "remat is set in the model's code and taken as none."
    return Imported(shape=None, workload=workload, layout=layout, notes=(*notes, remat))


def _shards(zero: dict, stage: int, ranks: int, context: int) -> int:
    """Data-parallel ranks that hold one copy: all, but for MiCS (DeepSpeed before 0.19), whose group may be smaller."""
    if stage == 0:
        return 1
    group = _count(zero, "mics_shard_size", ranks * context)
    if group % context or ranks % (group // context):
        raise SpecError(f"DeepSpeed JSON: mics_shard_size={group} does not divide the {ranks * context} ranks")
    return group // context


def _section(config: dict, name: str) -> dict:
    value = config.get(name, {})
    if not isinstance(value, dict):
        raise SpecError(f"DeepSpeed JSON: {name}={value!r} must be an object")
    return value


def _count(section: dict, key: str, default: int, *, minimum: int = 1) -> int:
    value = section.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise SpecError(
            f"DeepSpeed JSON: {key}={value!r} must be a whole number from {minimum} up ('auto' is not known)"
        )
    return value


def _precision(config: dict) -> str:
    for name in ("bf16", "fp16"):
        if _section(config, name).get("enabled"):
            pure = name == "bf16" and _section(config, "data_types").get("grad_accum_dtype") == "bf16"
            return "bf16_pure" if pure else name
    return "fp32"


def _optimizer(config: dict) -> str:
    kind = str(_section(config, "optimizer").get("type", "AdamW"))
    ours = {theirs.lower(): name for name, theirs in OPTIMIZERS.items()} | {"adam": "adamw"}
    if kind.lower() not in ours:
        raise SpecError(f"DeepSpeed JSON: optimizer.type={kind!r} is not one of {', '.join(OPTIMIZERS.values())}, Adam")
    return ours[kind.lower()]
