"""A layout as an eLargeModel YAML of EasyDeL (`python -m easydel.scripts.elarge`); keys as in EasyDeL 0.3.

EasyDeL takes the model from a Hugging Face checkpoint. Its mesh is (dp, fsdp, ep, tp, sp); a batch is split over dp and
fsdp, and experts over ep with whatever is bound to it.
https://github.com/erfanzar/EasyDeL/tree/main/easydel/infra/elarge
"""

import math
import re

import yaml

from jaxscale.errors import LayoutError
from jaxscale.export.result import Export
from jaxscale.export.sharding import data_parallel, outer_degrees
from jaxscale.types import Cluster, Layout, ModelShape, Workload, remat_policy
from jaxscale.types.legality import check_layout

DTYPES = {
    "bf16": {"dtype": "bf16", "param_dtype": "fp32"},
    "fp16": {"dtype": "fp16", "param_dtype": "fp32"},
    "bf16_pure": {"dtype": "bf16", "param_dtype": "bf16"},
    "fp32": {"dtype": "fp32", "param_dtype": "fp32"},
}
OPTIMIZERS = ("adamw", "adafactor", "lion", "muon")
REMATS = {"none": "", "dots": "dots_saveable", "full": "nothing_saveable"}
# EasyDeL's checkpoint_name -> our op
DENSE_TARGETS = {
    "attn_query": "q",
    "attn_key": "k",
    "attn_value": "v",
    "attn_output": "attention_out",
    "mlp_gate": "mlp_gate",
    "mlp_up": "mlp_up",
    "mlp_down": "mlp_down",
}
EXPERT_TARGETS = {"mlp_gate": "expert_gate", "mlp_up": "expert_up", "mlp_down": "expert_down"}
LATENT_TARGETS = {"attn_query_a": "q_down"}
NORMED_TARGETS = {"attn_query": "q_proj", "attn_key": "k_proj"}  # before queries and keys are normalized
AXIS_NAMES = ("dp", "fsdp", "ep", "tp", "sp")
CHECKPOINT = re.compile(r"[\w.-]+/[\w.-]+")  # a Hugging Face name: owner/model


def easydel(shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> Export:
    """Write the YAML for `python -m easydel.scripts.elarge --config FILE`; `mixture`, the data, is the user's."""
    check_layout(shape, workload, layout, cluster.num_devices)
    _refuse(shape, workload, layout)
    dims = _mesh(layout)
    config: dict[str, object] = {
        "model": {
            "name_or_path": shape.source if _has_checkpoint(shape) else shape.name,
            "task": "causal-language-model",
        },
        "loader": DTYPES[workload.precision.name],
        "sharding": {
            "axis_dims": [dims[name] for name in AXIS_NAMES],
            "axis_names": list(AXIS_NAMES),
            "fsdp_is_ep_bound": layout.expert > 1,
            "sp_is_ep_bound": False,
        },
        "base_config": {"values": {"attn_mechanism": _attention(layout), **_remat(shape, layout)}},
        "trainer": _trainer(workload, layout),
    }
    text = yaml.safe_dump({"config": config, "actions": ["validate", "train"]}, sort_keys=False, width=120)
    notes = _notes(shape, workload, layout) + _placement_notes(cluster, layout, dims)
    return Export(text=text, filename="easydel.yaml", notes=notes)


def _has_checkpoint(shape: ModelShape) -> bool:
    return CHECKPOINT.fullmatch(shape.source) is not None


def _refuse(shape: ModelShape, workload: Workload, layout: Layout) -> None:
    if workload.precision.name not in DTYPES:
        raise LayoutError(f"precision={workload.precision.name!r} is unknown to EasyDeL; allowed: {', '.join(DTYPES)}")
    if layout.pipeline > 1:
        raise LayoutError(f"layout: pipeline={layout.pipeline}: EasyDeL 0.3 has no pipelines; set pipeline=1")
    shards = data_parallel(layout).shards
    if layout.expert > 1 and shards == 1:
        raise LayoutError(f"layout: expert={layout.expert}: EasyDeL spreads experts over fsdp, which needs zero=3")
    if layout.expert > 1 and shape.moe is not None and shape.moe.num_experts % shards:
        raise LayoutError(
            f"layout: EasyDeL spreads experts over fsdp x expert = {shards} devices, which num_experts="
            f"{shape.moe.num_experts} must be a multiple of; move degrees from fsdp to data"
        )


def _mesh(layout: Layout) -> dict[str, int]:
    """Degrees of EasyDeL's axes. Its batch is not split over ep, so what splits ours too goes to fsdp."""
    parallel = data_parallel(layout)
    return {
        "dp": parallel.replicas,
        "fsdp": parallel.shards,
        "ep": 1,
        "tp": layout.tensor,
        "sp": layout.context,
    }


def _attention(layout: Layout) -> str:
    return "ring" if layout.context > 1 and layout.context_method == "ring" else "auto"


def _trainer(workload: Workload, layout: Layout) -> dict[str, object]:
    """EasyDeL's total batch is that of one accumulation step, over all devices."""
    config: dict[str, object] = {
        "trainer_type": "base",
        "max_length": workload.seq_len,
        "total_batch_size": layout.microbatch_size * layout.batch_shards,
        "gradient_accumulation_steps": layout.num_microbatches(workload.global_batch_size),
    }
    if workload.optimizer.name in OPTIMIZERS:
        config["optimizer"] = workload.optimizer.name
    return config


def _targets(shape: ModelShape) -> dict[str, str]:
    """Names that EasyDeL gives to activations of this model, with our op for each."""
    names = DENSE_TARGETS | (NORMED_TARGETS if shape.qk_norm != "none" else {})
    names |= LATENT_TARGETS if shape.mla is not None else {}
    return names | (EXPERT_TARGETS if shape.moe is not None else {})


def _remat(shape: ModelShape, layout: Layout) -> dict[str, object]:
    if layout.remat in REMATS:
        return {"gradient_checkpointing": REMATS[layout.remat]}
    saved = remat_policy(layout.remat).saved
    kept = [name for name, op in _targets(shape).items() if op in saved]
    if not kept:
        return {"gradient_checkpointing": REMATS["full"]}
    return {"gradient_checkpointing": "save_only_these_names", "gradient_checkpointing_targets": kept}


def _lost(shape: ModelShape, layout: Layout) -> list[str]:
    """What the policy keeps and EasyDeL does not: ops without a name there, and all that waits on the host."""
    if layout.remat in REMATS:
        return []
    policy = remat_policy(layout.remat)
    absent = {"q_down", "kv_down"} if shape.mla is None else set()
    absent |= {"q_proj", "k_proj"} if shape.qk_norm == "none" else set()
    inputs = ["layer inputs on the host"] * policy.offload_layer_input
    return sorted((policy.saved - set(_targets(shape).values()) | policy.offloaded) - absent) + inputs


def _notes(shape: ModelShape, workload: Workload, layout: Layout) -> tuple[str, ...]:
    parallel, optimizer = data_parallel(layout), workload.optimizer.name
    lost = ", ".join(_lost(shape, layout))
    said = {
        f"model {shape.name}: no Hugging Face name is known; set model.name_or_path.": not _has_checkpoint(shape),
        "`mixture`, the data, is left to you.": True,
        f"ZeRO stage {parallel.stage} is exported as stage 3: EasyDeL shards parameters, gradients and optimizer "
        "state alike.": parallel.stage in (1, 2),
        f"remat={layout.remat} also keeps {lost}: EasyDeL recomputes that.": bool(lost),
        "sequence_parallel=true is not exported: EasyDeL splits the residual stream's width over tp, where it does.": (
            layout.sequence_parallel
        ),
        f"context={layout.context} shards parameters in EasyDeL, whatever the rest does.": layout.context > 1
        and parallel.stage == 0,
        f"expert={layout.expert}: EasyDeL's batch is not split over ep, so it is exported within fsdp="
        f"{parallel.shards}, over all of which the experts are spread (fsdp_is_ep_bound).": layout.expert > 1,
        f"capacity_factor={workload.capacity_factor}: EasyDeL's experts are dropless.": bool(
            shape.moe is not None and workload.capacity_factor
        ),
        f"optimizer={optimizer}: EasyDeL has {', '.join(OPTIMIZERS)}; its default is kept.": optimizer
        not in OPTIMIZERS,
        "offload_optimizer=true is not exported: EasyDeL keeps optimizer state on the devices.": (
            layout.offload_optimizer
        ),
    }  # fmt: skip
    return parallel.notes + tuple(sentence for sentence, holds in said.items() if holds)


def _placement_notes(cluster: Cluster, layout: Layout, dims: dict[str, int]) -> tuple[str, ...]:
    """EasyDeL puts all slices on the first axis that their number divides (eformer's create_mesh)."""
    outer = {axis: degree for axis, degree in outer_degrees(layout, cluster).items() if degree > 1}
    groups = math.prod(outer.values())
    chosen = next((name for name in AXIS_NAMES if dims[name] % groups == 0), None)
    batch = "fsdp" if dims["fsdp"] > 1 else "dp"  # of our fsdp and expert
    theirs = {"data": "dp" if dims["dp"] > 1 else "fsdp", "tensor": "tp", "context": "sp"}
    if not outer or {theirs.get(axis, batch) for axis in outer} == {chosen}:
        return ()
    wanted = ", ".join(f"{axis}={degree}" for axis, degree in outer.items())
    where = f"puts all {groups} on {chosen}" if chosen else f"finds no axis that {groups} divides"
    return (f"across slices or nodes the layout has {wanted}; EasyDeL {where}.",)
