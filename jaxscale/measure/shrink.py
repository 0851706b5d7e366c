"""The small twin of a layout: the same mesh axes, features and code paths on a few emulated devices.

Every degree above one becomes two, every size becomes the smallest that all axes still divide; what is a choice
(attention kind, norms, routing, remat, ZeRO, schedule) stays as it is.
"""

import dataclasses
import math
from dataclasses import dataclass

from jaxscale.types import AXES, Layout, ModelShape, MoEShape, Workload, precision_named

MIN_DEVICES = 8
HEAD_DIM = 16
WIDTH = 64
VOCABULARY = 250  # not a multiple of a tensor degree, so that padding is exercised
TOKENS = 64  # of one sequence
MAX_MICROBATCHES = 4
MAX_CHUNKS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """What runs in place of the real thing; float32, so that results can be compared closely."""

    shape: ModelShape
    workload: Workload
    layout: Layout


def shrink(shape: ModelShape, workload: Workload, layout: Layout) -> Twin:
    """Return the twin of a layout that can run `shape`."""
    small_layout = _layout(layout, workload.global_batch_size)
    microbatches = min(layout.num_microbatches(workload.global_batch_size), MAX_MICROBATCHES)
    if small_layout.schedule == "interleaved":
        microbatches = max(microbatches // small_layout.pipeline, 1) * small_layout.pipeline
    small_shape = _shape(shape, small_layout)
    capacity = workload.capacity_factor
    if capacity and small_shape.moe:
        # Room for every token: which tokens are dropped depends on how the batch is split.
        capacity = small_shape.moe.num_experts / small_shape.moe.experts_per_token
    return Twin(
        shape=small_shape,
        workload=dataclasses.replace(
            workload,
            seq_len=TOKENS,
            global_batch_size=small_layout.batch_shards * small_layout.microbatch_size * microbatches,
            precision=precision_named("fp32"),
            capacity_factor=capacity,
        ),
        layout=small_layout,
    )


def _layout(layout: Layout, global_batch_size: int) -> Layout:
    degrees = {axis: min(getattr(layout, axis), 2) for axis in AXES}
    # Devices left over go to the axes that were largest.
    for axis in sorted(AXES, key=lambda axis: -getattr(layout, axis)):
        while math.prod(degrees.values()) < MIN_DEVICES and degrees[axis] * 2 <= getattr(layout, axis):
            if axis in ("pipeline", "expert", "tensor") and degrees[axis] >= 2:
                break
            degrees[axis] *= 2
    return dataclasses.replace(
        layout,
        **degrees,
        microbatch_size=min(layout.microbatch_size, 2),
        virtual_stages=min(layout.virtual_stages, MAX_CHUNKS),
    )


def _shape(shape: ModelShape, layout: Layout) -> ModelShape:
    tensor = layout.tensor
    grouped = min(shape.num_heads // shape.num_kv_heads, 2)
    kv_heads = min(shape.num_kv_heads, 2 * tensor)
    head_dim = HEAD_DIM
    return dataclasses.replace(
        shape,
        name=f"{shape.name}-twin",
        num_layers=_num_layers(shape, layout),
        d_model=WIDTH,
        num_heads=kv_heads * grouped,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        d_ff=2 * WIDTH,
        vocab_size=VOCABULARY,
        moe=_experts(shape.moe, layout) if shape.moe else None,
        mla=dataclasses.replace(
            shape.mla,
            kv_lora_rank=24,
            q_lora_rank=32 if shape.mla.q_lora_rank else 0,
            qk_nope_head_dim=head_dim,
            qk_rope_head_dim=head_dim // 2,
            v_head_dim=head_dim,
        )
        if shape.mla
        else None,
        window=min(shape.window, TOKENS // 4),
        max_seq_len=TOKENS if shape.max_seq_len else 0,
        rope=dataclasses.replace(shape.rope, short_factors=(), long_factors=(), scaling="none")
        if shape.rope.scaling == "longrope"
        else shape.rope,
        attention_scale=0.0,
        embedding_scale=shape.embedding_scale if shape.embedding_scale == 1.0 else math.sqrt(WIDTH),
    )


def _num_layers(shape: ModelShape, layout: Layout) -> int:
    """Two layers a chunk of every kind that the model has, leading dense layers included."""
    period = max(shape.global_interval, shape.moe.layer_interval if shape.moe else 1, 1)
    leading = 2 * min(shape.moe.num_leading_dense_layers, 1) if shape.moe else 0
    chunks = layout.pipeline * layout.virtual_stages
    layers = leading + 2 * period * chunks
    return min(layers, shape.num_layers) if layout.pipeline == 1 else max(layers, chunks)


def _experts(moe: MoEShape, layout: Layout) -> MoEShape:
    groups = min(moe.num_expert_groups, 2)
    experts = max(4, 2 * layout.expert, 2 * groups)
    return dataclasses.replace(
        moe,
        num_experts=experts,
        experts_per_token=min(moe.experts_per_token, experts // 2),
        expert_d_ff=WIDTH,
        shared_expert_d_ff=WIDTH if moe.num_shared_experts else 0,
        num_shared_experts=min(moe.num_shared_experts, 1),
        num_leading_dense_layers=2 * min(moe.num_leading_dense_layers, 1),
        num_expert_groups=groups,
        groups_per_token=min(moe.groups_per_token, groups),
    )
