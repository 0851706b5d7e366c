"""Megatron-LM arguments -> shape, workload and layout."""

import ast
import dataclasses
import shlex
from typing import Any

from jaxscale.errors import SpecError
from jaxscale.export import write_megatron as keys
from jaxscale.export.result import Imported
from jaxscale.types import Layout, MLAShape, ModelShape, MoEShape, RopeShape, Workload, optimizer_named, precision_named
from jaxscale.types.layout import ZERO_STAGES

FLOATS = {"--norm-epsilon"}
# Understood, or without a bearing on what is predicted when its value is the usual one
UNDERSTOOD = {
    *keys.SHAPE_KEYS, *keys.LAYOUT_KEYS, *keys.WORKLOAD_KEYS, *keys.MOE_KEYS, *keys.MLA_KEYS, "--q-lora-rank",
    "--group-query-attention", "--swiglu", "--squared-relu", "--normalization", "--max-position-embeddings",
    "--position-embedding-type", "--rotary-base", "--rotary-percent", "--untie-embeddings-and-output-weights",
    "--disable-bias-linear", "--add-qkv-bias", "--qk-layernorm", "--window-size", "--expert-tensor-parallel-size",
    "--moe-shared-expert-intermediate-size", "--moe-layer-freq", "--moe-router-score-function",
    "--moe-expert-capacity-factor", "--moe-pad-expert-input-to-capacity", "--moe-token-dispatcher-type",
    "--multi-latent-attention", "--sequence-parallel", "--cp-comm-type", "--num-layers-per-virtual-pipeline-stage",
    "--bf16", "--fp16", "--fp8-format", "--use-distributed-optimizer", "--use-megatron-fsdp",
    "--data-parallel-sharding-strategy", "--num-distributed-optimizer-instances", "--recompute-granularity",
    "--window-attn-skip-freq", "--softmax-type", "--use-rope-scaling", "--rope-scaling-factor", "--rope-type",
    "--quick-geglu", "--glu-linear-offset", "--activation-func-clamp-value", "--moe-router-enable-expert-bias",
    "--moe-router-topk-scaling-factor", "--moe-shared-expert-gate", *keys.GROUP_KEYS, *keys.YARN_KEYS,
    "--recompute-method", "--recompute-num-layers", "--recompute-modules", "--optimizer", *keys.OFFLOAD_FLAGS,
    "--recompute-activations", "--num-virtual-stages-per-pipeline-rank", "--use-torch-fsdp2",
    "--torch-fsdp2-no-reshard-after-forward", "--moe-router-pre-softmax", "--ckpt-format",
}  # fmt: skip
SHARDING_STAGES = {"no_shard": "0", "optim": "1", "optim_grads": "2", "optim_grads_params": "3"}


def read_megatron(text: str, *, num_devices: int, name: str = "megatron") -> Imported:
    """Read the arguments of `pretrain_gpt.py`; data parallelism is what `num_devices` leave over."""
    args = _parse(text)
    unknown = sorted(set(args) - UNDERSTOOD)
    notes = (f"Not understood, and left out: {', '.join(unknown)}.",) if unknown else ()
    shape = _shape(args, name)
    workload = Workload(
        **{field: _int(args, key) for key, field in keys.WORKLOAD_KEYS.items()},
        precision=precision_named(_precision(args)), optimizer=optimizer_named(_optimizer(args)),
        capacity_factor=_float(args, "--moe-expert-capacity-factor", 0.0),
    )  # fmt: skip
    return Imported(shape=shape, workload=workload, layout=_layout(args, shape, num_devices), notes=notes)


def _parse(text: str) -> dict[str, str]:
    """`--key value`, `--key=value` and flags; several values of one key are joined by spaces."""
    args: dict[str, str] = {}
    key = ""
    for token in shlex.split(text, comments=True):
        if token.startswith("--"):
            key, _, value = token.partition("=")
            args[key] = value
        elif not key:
            raise SpecError(f"Megatron arguments: {token!r} does not follow an argument such as --num-layers")
        else:
            args[key] = f"{args[key]} {token}".strip()
    return args


def _int(args: dict[str, str], key: str, default: int | None = None) -> int:
    value = args.get(key, default)
    if value is None:
        raise SpecError(f"Megatron arguments: {key} is missing")
    try:
        return int(value)
    except ValueError as error:
        raise SpecError(f"Megatron arguments: {key}={value!r} must be a whole number") from error


def _float(args: dict[str, str], key: str, default: float) -> float:
    try:
        return float(args.get(key, default))
    except ValueError as error:
        raise SpecError(f"Megatron arguments: {key}={args[key]!r} must be a number") from error


def _choice(args: dict[str, str], key: str, default: str, ours: dict[str, str]) -> str:
    """Our word for theirs."""
    theirs = {their: our for our, their in ours.items()}
    value = args.get(key, default)
    if value not in theirs:
        raise SpecError(f"Megatron arguments: {key}={value!r} is not one of {', '.join(theirs)}")
    return theirs[value]


def _shape(args: dict[str, str], name: str) -> ModelShape:
    hidden, heads = _int(args, "--hidden-size"), _int(args, "--num-attention-heads")
    clamp = _float(args, "--activation-func-clamp-value", 0.0) if "--quick-geglu" in args else 0.0
    gated = "--swiglu" in args or clamp > 0
    norm = _choice(args, "--normalization", "LayerNorm", keys.NORMS)
    defaults = {
        "--kv-channels": hidden // heads,
        "--num-query-groups": heads,
        # As Megatron fills it in: a gated MLP of about as many parameters, in steps of 64
        "--ffn-hidden-size": 4 * hidden * 2 // 3 // 64 * 64 if "--swiglu" in args else 4 * hidden,
    }
    sizes: dict[str, Any] = {
        field: _float(args, key, 1e-5) if key in FLOATS else _int(args, key, defaults.get(key))
        for key, field in keys.SHAPE_KEYS.items()
    }
    if "--group-query-attention" not in args:
        sizes["num_kv_heads"] = sizes["num_heads"]
    positions = _choice(args, "--position-embedding-type", "learned_absolute", keys.POSITIONS)
    return ModelShape(
        name=name, **sizes, mlp="swiglu" if gated else "relu2" if "--squared-relu" in args else "gelu",
        norm=norm, norm_bias=norm == "layernorm", swiglu_limit=clamp,  # type: ignore[arg-type]
        positions=positions,  # type: ignore[arg-type]
        max_seq_len=_int(args, "--max-position-embeddings") if positions == "learned" else 0,
        rope=_rope(args), attention_sinks=args.get("--softmax-type") == "learnable",
        tied_embeddings="--untie-embeddings-and-output-weights" not in args,
        mlp_bias="--disable-bias-linear" not in args, attention_out_bias="--disable-bias-linear" not in args,
        qkv_bias="--add-qkv-bias" in args or "--disable-bias-linear" not in args,
        qk_norm="head" if "--qk-layernorm" in args else "none",
        window=int(args["--window-size"].strip("()").split(",")[0]) if "--window-size" in args else 0,
        global_interval=_int(args, "--window-attn-skip-freq", 0),
        moe=_moe(args) if "--num-experts" in args else None, mla=_mla(args),
    )  # fmt: skip


def _rope(args: dict[str, str]) -> RopeShape:
    plain = RopeShape(theta=_float(args, "--rotary-base", 10_000.0), fraction=_float(args, "--rotary-percent", 1.0))
    if "--use-rope-scaling" in args:
        factor = _float(args, "--rope-scaling-factor", 8.0)
        return dataclasses.replace(plain, scaling="llama3", factor=factor, **keys.LLAMA3_REST)
    if args.get("--rope-type") != "yarn":
        return plain
    given = {field: _float(args, key, getattr(plain, field)) for key, field in keys.YARN_KEYS.items()}
    return dataclasses.replace(plain, scaling="yarn", interleaved=True, **keys.YARN_REST, **given)


def _moe(args: dict[str, str]) -> MoEShape:
    shared = _int(args, "--moe-shared-expert-intermediate-size", 0)
    leading, interval = _sparse_layers(args.get("--moe-layer-freq", "1"))
    return MoEShape(
        **{field: _int(args, key) for key, field in keys.MOE_KEYS.items()}, num_shared_experts=int(shared > 0),
        renormalize_top_k="--moe-router-pre-softmax" not in args,
        router_bias="--moe-router-enable-expert-bias" in args, shared_expert_gate="--moe-shared-expert-gate" in args,
        routed_scale=_float(args, "--moe-router-topk-scaling-factor", 1.0),
        **{field: _int(args, key, 1) for key, field in keys.GROUP_KEYS.items()},
        shared_expert_d_ff=shared, num_leading_dense_layers=leading, layer_interval=interval,
        router=_choice(  # type: ignore[arg-type]
            args, "--moe-router-score-function", "softmax", {"softmax": "softmax", "sigmoid": "sigmoid"}
        ),
    )  # fmt: skip


def _sparse_layers(frequency: str) -> tuple[int, int]:
    """Leading dense layers and the interval after them; a pattern is a list, or lists times counts, added up."""
    try:
        pattern = _value(ast.parse(frequency.strip("'"), mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise SpecError(f"Megatron arguments: --moe-layer-freq={frequency!r} is no number or pattern") from error
    if isinstance(pattern, int):
        return 0, pattern
    leading = pattern.index(1) if 1 in pattern else len(pattern)
    if not all(pattern[leading:]):
        raise SpecError(f"Megatron arguments: --moe-layer-freq={frequency}: dense layers may only come first")
    return leading, 1


def _value(node: ast.expr) -> Any:
    """A number, a list of numbers, or such lists repeated and joined, as in ([0]*3+[1]*58)."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _value(node.left) * _value(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _value(node.left) + _value(node.right)
    return ast.literal_eval(node)


def _mla(args: dict[str, str]) -> MLAShape | None:
    if "--multi-latent-attention" not in args:
        return None
    sizes = {field: _int(args, key) for key, field in keys.MLA_KEYS.items()}
    return MLAShape(**sizes, q_lora_rank=_int(args, "--q-lora-rank", 0))


def _layout(args: dict[str, str], shape: ModelShape, num_devices: int) -> Layout:
    degrees = {field: _int(args, key, 1) for key, field in keys.LAYOUT_KEYS.items()}
    others = degrees["tensor"] * degrees["pipeline"] * degrees["context"] * degrees["expert"]
    ranks, left = divmod(num_devices, others)
    if left or not ranks:
        raise SpecError(
            f"Megatron arguments: tensor x pipeline x context x expert = {others} does not divide {num_devices} devices"
        )
    stage = "1" if "--use-distributed-optimizer" in args else "0"
    if "--use-megatron-fsdp" in args:
        stage = SHARDING_STAGES[args.get("--data-parallel-sharding-strategy", "no_shard")]
    if "--use-torch-fsdp2" in args:
        stage = "2" if "--torch-fsdp2-no-reshard-after-forward" in args else "3"
    replicas = ranks if stage == "0" else _int(args, "--num-distributed-optimizer-instances", 1)
    per_chunk = _int(args, "--num-layers-per-virtual-pipeline-stage", 0)
    virtual = _int(args, "--num-virtual-stages-per-pipeline-rank", 1)
    if per_chunk:
        virtual = shape.num_layers // (per_chunk * degrees["pipeline"])
    shards = dict(zip(("params_shard", "grads_shard", "optimizer_shard"), ZERO_STAGES[stage], strict=True))
    return Layout(
        **degrees, data=replicas, fsdp=ranks // replicas, **shards,  # type: ignore[arg-type]
        sequence_parallel="--sequence-parallel" in args, virtual_stages=virtual,
        schedule="interleaved" if virtual > 1 else "1f1b", remat=_remat(args),
        context_method=_choice(args, "--cp-comm-type", "p2p", keys.CONTEXT_METHODS),  # type: ignore[arg-type]
        offload_optimizer="--optimizer-cpu-offload" in args,
    )  # fmt: skip


def _remat(args: dict[str, str]) -> str:
    """Megatron's selective recomputation redoes attention's core, which fused kernels do in any case."""
    granularity = args.get("--recompute-granularity", "none")
    modules = args.get("--recompute-modules", "core_attn")
    return {"full": "full", "selective": "none" if modules == "core_attn" else "dots"}.get(granularity, "none")


def _precision(args: dict[str, str]) -> str:
    if "--fp8-format" in args:
        return "fp8"
    return next((name for name in ("bf16", "fp16") if f"--{name}" in args), "fp32")


def _optimizer(args: dict[str, str]) -> str:
    return _choice(args, "--optimizer", "adam", keys.OPTIMIZERS)
