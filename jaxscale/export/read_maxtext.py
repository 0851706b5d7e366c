"""A MaxText configuration (YAML laid over base.yml) -> shape, workload and layout."""

from typing import Any

import yaml

from jaxscale.errors import SpecError
from jaxscale.export import maxtext_model as model
from jaxscale.export import write_maxtext as keys
from jaxscale.export.result import Imported
from jaxscale.types import (
    AXES,
    REMAT_POLICIES,
    Layout,
    MLAShape,
    ModelShape,
    MoEShape,
    RopeShape,
    Workload,
    optimizer_named,
    precision_named,
)

# Defaults of MaxText's base.yml for what is read here and may be left out
DEFAULTS: dict[str, Any] = {
    "model_name": "default", "decoder_block": "llama2", "base_num_decoder_layers": 16, "base_emb_dim": 2048,
    "base_num_query_heads": 16, "base_num_kv_heads": 16, "head_dim": 128, "base_mlp_dim": 7168, "vocab_size": 32_000,
    "logits_via_embedding": False, "normalization_layer_epsilon": 1e-5, "sliding_window_size": 0,
    "attn_logits_soft_cap": 0.0, "final_logits_soft_cap": 0.0, "attention_bias": False, "mlp_bias": False,
    "use_qk_norm": False, "rope_max_timescale": 10_000, "num_experts": 1, "mlp_activations": ["silu", "linear"],
    "max_target_length": 2048, "per_device_batch_size": 12.0, "gradient_accumulation_steps": 1, "opt_type": "adamw",
    "ici_fsdp_parallelism": -1, "dcn_data_parallelism": -1, "shard_optimizer_over_data": False,
    "optimizer_memory_host_offload": False, "context_parallel_strategy": "all_gather", "remat_policy": "full",
    "num_layers_per_pipeline_stage": 1, "num_pipeline_microbatches": -1, "decoder_layer_input": "device",
    "capacity_factor": -1.0, "dtype": "bfloat16", "weight_dtype": "float32", "grad_dtype": "float32",
    "quantization": "", "attention_type": "global", "attention_sink": False, "mlp_activations_limit": -1.0,
    "use_post_attn_norm": False, "local_rope_max_timescale": -1, "rope_type": "default", "rope_factor": 40,
    "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "rope_interleave": True,
    "rope_truncate": True, "rope_attention_scaling": False, "rope_linear_scaling_factor": 1.0, "routed_score_func": "",
}  # fmt: skip
GLOBAL_INTERVALS = {"gemma2": 2, "gemma3_text": 6, "gpt_oss": 2}  # written into MaxText's decoder blocks
# MaxText's named policies -> ours
REMATS = {
    "full": "full", "minimal": "dots", "save_qkv_proj": "attention", "qkv_proj_offloaded": "offload_attention",
}  # fmt: skip


def read_maxtext(text: str, *, num_devices: int, num_slices: int = 1, name: str = "maxtext") -> Imported:
    """Read a configuration file; a degree of -1 takes the devices (or slices) that the others leave over."""
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"MaxText configuration: not YAML: {error}") from error
    if not isinstance(given, dict):
        raise SpecError("MaxText configuration: must be a mapping of keys to values")
    config = DEFAULTS | given
    degrees = _degrees(config, num_devices, num_slices)
    notes: list[str] = []
    shape = None
    if config["model_name"] != "default":
        notes.append(f"model_name={config['model_name']} is kept in MaxText; name the model beside this file.")
    else:
        shape = _shape(config, name)
    remat, remat_notes = _remat(config)
    accumulation = config["gradient_accumulation_steps"]
    batch = round(config["per_device_batch_size"] * num_devices * accumulation)
    layout = _layout(config, degrees, remat, batch, shape)
    workload = Workload(
        seq_len=config["max_target_length"], global_batch_size=batch, precision=precision_named(_precision(config)),
        optimizer=optimizer_named(_ours(keys.OPTIMIZERS, config, "opt_type")),
        capacity_factor=max(config["capacity_factor"], 0.0),
    )  # fmt: skip
    return Imported(shape=shape, workload=workload, layout=layout, notes=(*notes, *remat_notes))


def _ours(words: dict[str, str], config: dict[str, Any], key: str) -> str:
    """Our word for MaxText's."""
    theirs = {their: our for our, their in reversed(words.items())}
    if config[key] not in theirs:
        raise SpecError(f"MaxText configuration: {key}={config[key]!r} is not one of {', '.join(theirs)}")
    return theirs[config[key]]


def _degrees(config: dict[str, Any], num_devices: int, num_slices: int) -> dict[str, int]:
    """Degree of every axis, ici x dcn."""
    suffix = "_parallelism"
    totals: dict[str, int] = dict.fromkeys((*AXES, "tensor_sequence"), 1)
    for prefix, members in (("ici_", num_devices // num_slices), ("dcn_", num_slices)):
        found = {
            key.removeprefix(prefix).removesuffix(suffix): value
            for key, value in config.items()
            if key.startswith(prefix) and key.endswith(suffix)
        }
        strange = [axis for axis, degree in found.items() if axis not in totals and degree != 1]
        if strange:
            raise SpecError(
                f"MaxText configuration: {prefix}{strange[0]}{suffix}: that axis is not supported; allowed: 1"
            )
        known = 1
        for degree in found.values():
            known *= max(degree, 1)
        if members % known or (-1 not in found.values() and known != members):
            raise SpecError(f"MaxText configuration: {prefix}*{suffix} multiply to {known}, not to {members}")
        for axis in totals.keys() & found.keys():
            totals[axis] *= members // known if found[axis] == -1 else found[axis]
    return totals


def _layout(
    config: dict[str, Any], degrees: dict[str, int], remat: str, batch: int, shape: ModelShape | None
) -> Layout:
    pipeline = degrees["pipeline"]
    num_microbatches = config["gradient_accumulation_steps"]
    if pipeline > 1:
        num_microbatches = config["num_pipeline_microbatches"]
        num_microbatches = pipeline if num_microbatches == -1 else num_microbatches
    shards = degrees["data"] * degrees["fsdp"] * degrees["expert"]
    if batch % (shards * num_microbatches):
        raise SpecError(
            f"MaxText configuration: {batch} sequences cannot be split into {num_microbatches} microbatches on "
            f"{shards} batch shards"
        )
    virtual = 1
    if pipeline > 1 and shape is not None:
        virtual = max(shape.num_layers // (pipeline * config["num_layers_per_pipeline_stage"]), 1)
    sharded = degrees["fsdp"] * degrees["expert"] * degrees["context"] > 1
    inner = "fsdp" if sharded else "none"
    return Layout(
        **{axis: degrees[axis] for axis in AXES if axis != "tensor"},
        tensor=degrees["tensor"] * degrees["tensor_sequence"], sequence_parallel=degrees["tensor_sequence"] > 1,
        microbatch_size=batch // (shards * num_microbatches), params_shard=inner, grads_shard=inner,
        optimizer_shard="data" if config["shard_optimizer_over_data"] else inner, remat=remat,
        schedule="interleaved" if virtual > 1 else "gpipe" if pipeline > 1 else "1f1b", virtual_stages=virtual,
        context_method=_context_method(config, degrees["context"]),  # type: ignore[arg-type]
        offload_optimizer=config["optimizer_memory_host_offload"],
    )  # fmt: skip


def _context_method(config: dict[str, Any], context: int) -> str:
    method = _ours(keys.CONTEXT_STRATEGIES, config, "context_parallel_strategy")
    return method if context > 1 else "ring"  # jaxscale's default, where there is nothing to choose


def _shape(config: dict[str, Any], name: str) -> ModelShape:
    family = _ours(model.DECODER_BLOCKS, config, "decoder_block")
    if family == "deepseek_v2" and config["routed_score_func"] == "sigmoid":
        family = "deepseek_v3"
    gemma = family.startswith("gemma")
    experts = config["num_experts"] > 1
    window = config["sliding_window_size"]
    every = GLOBAL_INTERVALS.get(family, 0)
    sizes = {field: config[key] for key, field in model.SHAPE_KEYS.items()}
    sizes["window"] = window if every or config["attention_type"] == "local_sliding" else 0
    return ModelShape(
        name=name, family=family, **sizes, global_interval=every if window else 0,
        num_layers=config["base_num_decoder_layers"] * model.LAYERS_PER_BLOCK.get(family, 1),
        mlp=_mlp(config), mlp_bias=config["mlp_bias"] and not experts,
        swiglu_limit=max(config["mlp_activations_limit"], 0.0),
        attention_out_bias=family == "gpt_oss" and config["attention_bias"],
        qk_norm="head" if config["use_qk_norm"] else "none", norm_unit_offset=gemma,
        norm_placement="sandwich" if config["use_post_attn_norm"] else "pre",
        embedding_scale=config["base_emb_dim"] ** 0.5 if gemma else 1.0,
        rope=_rope(config), moe=_moe(config), mla=_mla(config),
    )  # type: ignore[arg-type]  # fmt: skip


def _mlp(config: dict[str, Any]) -> str:
    mlps = {tuple(words): mlp for mlp, words in reversed(model.ACTIVATIONS.items())}
    activations = tuple(config["mlp_activations"])
    if list(activations) == model.CLAMPED_SWIGLU and config["mlp_activations_limit"] > 0:
        return "swiglu"
    if activations not in mlps:
        raise SpecError(f"MaxText configuration: mlp_activations={list(activations)} is not supported")
    return mlps[activations]


def _rope(config: dict[str, Any]) -> RopeShape:
    theta, local = float(config["rope_max_timescale"]), float(config["local_rope_max_timescale"])
    rope: dict[str, Any] = {"theta": theta, "local_theta": max(local, 0.0)}
    if config["rope_type"] == "llama3.1":
        rope |= {"scaling": "llama3", **model.LLAMA31}
    elif config["rope_type"] == "yarn":
        rope |= {"scaling": "yarn"} | {
            field: int(config[key]) if field == "original_max_seq_len" else float(config[key])
            for key, field in model.YARN_KEYS.items()
        }
        rope |= {"interleaved": config["rope_interleave"], "truncate": config["rope_truncate"]}
        if not config["rope_attention_scaling"]:
            rope |= {"mscale": config["mscale"], "mscale_all_dim": config["mscale"]}
    elif config["rope_linear_scaling_factor"] != 1.0:
        rope |= {"scaling": "linear", "factor": config["rope_linear_scaling_factor"]}
    return RopeShape(**rope)


def _moe(config: dict[str, Any]) -> MoEShape | None:
    if config["num_experts"] == 1:
        return None
    known = model.MOE_KEYS | (model.GROUP_KEYS if config.get("n_routing_groups", -1) > 0 else {})
    fields = {field: config[key] for key, field in known.items() if key in config}
    shared = fields.get("num_shared_experts", 0)
    router = "sigmoid" if config.get("routed_score_func") == "sigmoid" else "softmax"
    return MoEShape(
        **fields,
        shared_expert_d_ff=fields["expert_d_ff"] if shared else 0,
        router=router,
        expert_bias=config["mlp_bias"],
    )


def _mla(config: dict[str, Any]) -> MLAShape | None:
    if config["attention_type"] != "mla":
        return None
    return MLAShape(**{field: config[key] for key, field in model.MLA_KEYS.items()})


def _remat(config: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Our policy with the same places for MaxText's tensors; else full, and a sentence."""
    named = config["remat_policy"]
    if named in REMATS:
        return REMATS[named], ()
    if named == "custom":
        ops = {op: config.get(key, "remat") for key, op in keys.REMAT_KEYS.items()}
        layer_input = config["decoder_layer_input"] == "offload"
        for policy in REMAT_POLICIES.values():
            places = {
                o: "device" if o in policy.saved else "offload" if o in policy.offloaded else "remat" for o in ops
            }
            if places == ops and policy.offload_layer_input == layer_input:
                return policy.name, ()
    return "full", (f"remat_policy={named} matches none of jaxscale's policies; full is taken.",)


def _precision(config: dict[str, Any]) -> str:
    for name, wanted in keys.PRECISION_KEYS.items():
        if all(config[key] == value for key, value in wanted.items()):
            return name
    given = ", ".join(f"{key}={config[key]!r}" for key in keys.PRECISION_KEYS["bf16"])
    raise SpecError(f"MaxText configuration: {given} is none of {', '.join(keys.PRECISION_KEYS)}")
