"""A layout as Megatron-LM arguments (`pretrain_gpt.py`), checked against the fields of megatron-core's own configs.

Names, choices and what goes with what: `add_argument` and `validate_args` of
https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/arguments.py, as of the end of 2025 (commit 000c4ac)
and after most of its arguments came to be made from the fields of megatron-core (0.19).
"""

from jaxscale.errors import LayoutError
from jaxscale.export.result import Export
from jaxscale.export.sharding import data_parallel
from jaxscale.types import Cluster, Layout, ModelShape, MoEShape, Workload
from jaxscale.types.legality import check_layout

# Megatron's argument -> field of ModelShape
SHAPE_KEYS = {
    "--num-layers": "num_layers",
    "--hidden-size": "d_model",
    "--num-attention-heads": "num_heads",
    "--num-query-groups": "num_kv_heads",
    "--kv-channels": "head_dim",
    "--ffn-hidden-size": "d_ff",
    "--vocab-size": "vocab_size",
    "--norm-epsilon": "norm_epsilon",
}
LAYOUT_KEYS = {
    "--tensor-model-parallel-size": "tensor",
    "--pipeline-model-parallel-size": "pipeline",
    "--context-parallel-size": "context",
    "--expert-model-parallel-size": "expert",
    "--micro-batch-size": "microbatch_size",
}
WORKLOAD_KEYS = {"--seq-length": "seq_len", "--global-batch-size": "global_batch_size"}
MOE_KEYS = {
    "--num-experts": "num_experts",
    "--moe-router-topk": "experts_per_token",
    "--moe-ffn-hidden-size": "expert_d_ff",
}
MLA_KEYS = {
    "--kv-lora-rank": "kv_lora_rank",
    "--qk-head-dim": "qk_nope_head_dim",
    "--qk-pos-emb-head-dim": "qk_rope_head_dim",
    "--v-head-dim": "v_head_dim",
}
GROUP_KEYS = {"--moe-router-num-groups": "num_expert_groups", "--moe-router-group-topk": "groups_per_token"}
YARN_KEYS = {
    "--rotary-scaling-factor": "factor",
    "--mscale": "mscale",
    "--mscale-all-dim": "mscale_all_dim",
}
# What of the stretching of positions has no argument: what megatron-core has for latent attention and for Llama 3
YARN_REST = {"original_max_seq_len": 4096, "beta_fast": 32.0, "beta_slow": 1.0}
LLAMA3_REST = {"original_max_seq_len": 8192, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
# kind of MLP -> flags
MLPS = {
    "swiglu": ("--swiglu",),
    "gelu": (),
    "gelu_tanh": (),
    "relu2": ("--squared-relu",),
}
CLAMPED_GLU = ("--quick-geglu", "--glu-linear-offset 1.0")
NORMS = {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}
POSITIONS = {"rope": "rope", "learned": "learned_absolute", "none": "none"}
PRECISION_FLAGS = {
    "bf16": ("--bf16",),
    "fp16": ("--fp16",),
    "fp8": ("--bf16", "--fp8-format hybrid"),
    "fp32": (),
}
OPTIMIZERS = {"adamw": "adam", "sgd": "sgd", "muon": "muon"}
REMATS: dict[str, tuple[str, ...]] = {
    "none": (),
    "full": ("--recompute-granularity full", "--recompute-method uniform", "--recompute-num-layers 1"),
    "dots": ("--recompute-granularity selective", "--recompute-modules layernorm"),
    "dots of experts": ("--recompute-granularity selective", "--recompute-modules layernorm moe_act"),
}
CONTEXT_METHODS = {"ring": "p2p", "all_gather": "all_gather"}
FSDP = ("--use-distributed-optimizer", "--use-megatron-fsdp", "--ckpt-format fsdp_dtensor")
# ZeRO stage -> flags; stage 1 is Megatron's distributed optimizer, the others are its own FSDP
ZERO_FLAGS: dict[int, tuple[str, ...]] = {
    0: (),
    1: ("--use-distributed-optimizer",),
    2: (*FSDP, "--data-parallel-sharding-strategy optim_grads"),
    3: (*FSDP, "--data-parallel-sharding-strategy optim_grads_params"),
}
OFFLOAD_FLAGS = ("--optimizer-cpu-offload", "--use-precision-aware-optimizer")  # the first asks for the second


def megatron(shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> Export:
    """Write the arguments, one a line, as `pretrain_gpt.py $(cat megatron.args)` takes them."""
    check_layout(shape, workload, layout, cluster.num_devices)
    parallel = data_parallel(layout)
    _refuse(shape, workload)
    _refuse_layout(workload, layout, parallel.stage)
    flags = [
        *(f"{key} {getattr(layout, field)}" for key, field in LAYOUT_KEYS.items()),
        *(f"{key} {getattr(workload, field)}" for key, field in WORKLOAD_KEYS.items()),
        *_model(shape, workload, layout),
        *_layout(shape, layout),
        *PRECISION_FLAGS[workload.precision.name],
        *ZERO_FLAGS[parallel.stage],
        *_remat(shape, layout),
    ]
    if parallel.stage == 1 and parallel.replicas > 1:
        flags.append(f"--num-distributed-optimizer-instances {parallel.replicas}")
    if workload.optimizer.name in OPTIMIZERS:
        flags.append(f"--optimizer {OPTIMIZERS[workload.optimizer.name]}")
    if layout.offload_optimizer:
        flags += OFFLOAD_FLAGS
    notes = parallel.notes + _notes(shape, workload, layout, parallel.stage, parallel.replicas)
    return Export(text="\n".join(flags) + "\n", filename="megatron.args", notes=notes)


def _remat(shape: ModelShape, layout: Layout) -> tuple[str, ...]:
    """The nearest of Megatron's recomputations; the activation of a dense MLP is not among what it recomputes alone."""
    if layout.remat == "dots" and shape.moe is not None:
        return REMATS["dots of experts"]
    return REMATS.get(layout.remat, REMATS["full"])


def _refuse(shape: ModelShape, workload: Workload) -> None:
    wanted = {
        "mlp": (shape.mlp, MLPS),
        "positions": (shape.positions, POSITIONS),
        "precision": (workload.precision.name, PRECISION_FLAGS),
    }
    for field, (value, known) in wanted.items():
        if value not in known:
            raise LayoutError(f"{field}={value!r} cannot be said to Megatron-LM; allowed: {', '.join(known)}")
    structure = {
        "parallel_block": (shape.parallel_block, False),
        "norm_placement": (shape.norm_placement, "pre"),
        "norm_scale": (shape.norm_scale, True),
        "rope.interleaved": (shape.rope.interleaved and shape.mla is None, False),
        "moe.router_prototypes": (shape.moe is not None and shape.moe.router_prototypes, False),
    }
    for field, (value, allowed) in structure.items():
        if value != allowed:
            raise LayoutError(
                f"model {shape.name!r}: {field}={value} cannot be said to Megatron-LM; allowed: {allowed}"
            )


def _refuse_layout(workload: Workload, layout: Layout, stage: int) -> None:
    """What Megatron's own `validate_args` would stop at."""
    if layout.expert > 1 and workload.precision.name == "fp16":
        raise LayoutError(f"layout: expert={layout.expert}: Megatron-LM has no fp16 there; set precision=bf16")
    if layout.context > 1 and workload.seq_len % (2 * layout.context):
        raise LayoutError(
            f"layout: context={layout.context}: Megatron-LM needs seq_len={workload.seq_len} in multiples of "
            f"2 x {layout.context}"
        )
    if layout.offload_optimizer and (stage == 0 or workload.optimizer.name != "adamw"):
        raise LayoutError(
            f"layout: offload_optimizer=true with optimizer={workload.optimizer.name}, optimizer_shard="
            f"{layout.optimizer_shard}: Megatron-LM offloads adamw only, and sharded; set zero=1"
        )


def _model(shape: ModelShape, workload: Workload, layout: Layout) -> list[str]:
    flags = [f"{key} {getattr(shape, field)}" for key, field in SHAPE_KEYS.items()]
    flags += ["--group-query-attention", *_mlp(shape), f"--normalization {NORMS[shape.norm]}"]
    flags.append(f"--max-position-embeddings {max(shape.max_seq_len, workload.seq_len)}")
    flags.append(f"--position-embedding-type {POSITIONS[shape.positions]}")
    if shape.positions == "rope":
        flags += [f"--rotary-base {int(shape.rope.theta)}", f"--rotary-percent {shape.rope.fraction}", *_rope(shape)]
    if not shape.tied_embeddings:
        flags.append("--untie-embeddings-and-output-weights")
    if not shape.mlp_bias:
        flags.append("--disable-bias-linear")
    if shape.qkv_bias:
        flags.append("--add-qkv-bias")
    if shape.qk_norm != "none":
        flags.append("--qk-layernorm")
    if shape.window:
        flags.append(f"--window-size {shape.window},0")
    if shape.global_interval:
        flags.append(f"--window-attn-skip-freq {shape.global_interval}")
    if shape.attention_sinks:
        flags.append("--softmax-type learnable")
    return flags + _moe(shape, workload, layout) + _mla(shape)


def _mlp(shape: ModelShape) -> tuple[str, ...]:
    """The kind of MLP; gpt-oss clamps a sigmoid-gated unit, which Megatron puts together from three arguments."""
    if not shape.swiglu_limit:
        return MLPS[shape.mlp]
    return (*CLAMPED_GLU, f"--activation-func-clamp-value {shape.swiglu_limit}")


def _rope(shape: ModelShape) -> list[str]:
    rope = shape.rope
    if rope.scaling == "llama3":
        return ["--use-rope-scaling", f"--rope-scaling-factor {rope.factor}"]
    if rope.scaling == "yarn" and shape.mla is not None:
        keys = {key: getattr(rope, field) for key, field in YARN_KEYS.items()}
        return ["--rope-type yarn", *(f"{key} {value}" for key, value in keys.items())]
    return ["--rope-type rope"] if shape.mla is not None else []  # latent attention takes yarn by default


def _says_rope(shape: ModelShape) -> bool:
    """Whether Megatron-LM can be told how the positions are stretched."""
    rope = shape.rope
    rest = {"llama3": LLAMA3_REST} | ({"yarn": YARN_REST} if shape.mla is not None else {})
    if rope.scaling not in rest:
        return rope.scaling == "none"
    return all(getattr(rope, field) == value for field, value in rest[rope.scaling].items())


def _moe(shape: ModelShape, workload: Workload, layout: Layout) -> list[str]:
    if shape.moe is None:
        return []
    flags = [f"{key} {getattr(shape.moe, field)}" for key, field in MOE_KEYS.items()]
    flags.append(f"--expert-tensor-parallel-size {layout.tensor}")
    if shape.moe.num_shared_experts:
        width = shape.moe.num_shared_experts * shape.moe.shared_expert_d_ff
        flags.append(f"--moe-shared-expert-intermediate-size {width}")
    if shape.num_moe_layers < shape.num_layers:
        pattern = ",".join(str(int(shape.is_moe_layer(i))) for i in range(shape.num_layers))
        flags.append(f"--moe-layer-freq [{pattern}]")
    flags += _router(shape.moe)
    if workload.capacity_factor:
        flags += [f"--moe-expert-capacity-factor {workload.capacity_factor}", "--moe-pad-expert-input-to-capacity"]
    return [*flags, "--moe-token-dispatcher-type alltoall"]


def _router(moe: MoEShape) -> list[str]:
    flags = []
    if moe.router == "sigmoid":
        flags.append("--moe-router-score-function sigmoid")
        flags += ["--moe-router-enable-expert-bias"] * moe.router_bias
    elif not moe.renormalize_top_k:
        flags.append("--moe-router-pre-softmax")  # by default it is taken over the chosen experts only
    if moe.num_expert_groups > 1:
        flags += [f"{key} {getattr(moe, field)}" for key, field in GROUP_KEYS.items()]
    if moe.routed_scale != 1.0:
        flags.append(f"--moe-router-topk-scaling-factor {moe.routed_scale}")
    if moe.shared_expert_gate:
        flags.append("--moe-shared-expert-gate")
    return flags


def _mla(shape: ModelShape) -> list[str]:
    if shape.mla is None:
        return []
    flags = ["--multi-latent-attention", *(f"{key} {getattr(shape.mla, field)}" for key, field in MLA_KEYS.items())]
    return flags + ([f"--q-lora-rank {shape.mla.q_lora_rank}"] if shape.mla.q_lora_rank else [])


def _layout(shape: ModelShape, layout: Layout) -> list[str]:
    flags = ["--sequence-parallel"] if layout.sequence_parallel else []
    if layout.context > 1:
        flags.append(f"--cp-comm-type {CONTEXT_METHODS[layout.context_method]}")
    if layout.virtual_stages > 1:
        chunks = layout.pipeline * layout.virtual_stages
        if shape.num_layers % chunks:
            raise LayoutError(
                f"layout: pipeline={layout.pipeline} x virtual_stages={layout.virtual_stages} must divide "
                f"num_layers={shape.num_layers} for Megatron-LM"
            )
        flags.append(f"--num-layers-per-virtual-pipeline-stage {shape.num_layers // chunks}")
    return flags


def _notes(shape: ModelShape, workload: Workload, layout: Layout, stage: int, replicas: int) -> tuple[str, ...]:
    optimizer = workload.optimizer.name
    said = {
        f"remat={layout.remat} has no Megatron setting; full recomputation is exported.": layout.remat not in REMATS,
        "remat=dots is exported as recomputing norms, and experts' activation functions.": layout.remat == "dots",
        f"schedule={layout.schedule}: Megatron-LM runs 1f1b, interleaved where virtual stages are given.": (
            layout.pipeline > 1 and layout.schedule not in ("1f1b", "interleaved")
        ),
        f"pipeline={layout.pipeline} does not divide num_layers={shape.num_layers}: add "
        "--pipeline-model-parallel-layout.": layout.virtual_stages == 1 and shape.num_layers % layout.pipeline > 0,
        f"data={replicas} replicas of a shard group: Megatron FSDP shards over all data-parallel ranks unless "
        "its hybrid sharding is set up.": stage > 1 and replicas > 1,
        f"optimizer={optimizer}: Megatron-LM has {', '.join(OPTIMIZERS)}; its default is kept.": optimizer
        not in OPTIMIZERS,
        "optimizer=muon: Megatron-LM before 0.16 takes it with zero=0 only.": optimizer == "muon" and stage > 0,
        f"rope.scaling={shape.rope.scaling} is not exported in full.": not _says_rope(shape),
        "qk_norm=full: Megatron-LM normalizes each head.": shape.qk_norm == "full",
        "attention_out_bias=true is not exported: Megatron-LM has one switch for it and the biases of the MLP.": (
            shape.attention_out_bias and not shape.mlp_bias
        ),
        "moe.router_bias and moe.expert_bias are not exported: Megatron-LM's routers and experts have none.": (
            shape.moe is not None
            and (shape.moe.expert_bias or (shape.moe.router_bias and shape.moe.router != "sigmoid"))
        ),
        f"axis_order={'/'.join(layout.axis_order)}: Megatron-LM's ranks are ordered tp-cp-ep-dp-pp.": (
            layout.axis_order != Layout().axis_order
        ),
    }  # fmt: skip
    return tuple(sentence for sentence, holds in said.items() if holds)
