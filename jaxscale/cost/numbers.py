"""A model shape as plain numbers, so that one formula serves one model and a table of a thousand runs.

`ShapeNumbers` splits a `ModelShape` into its structure (which ops exist: booleans, the same for every row of a batch)
and its sizes (numbers, or arrays [n] when many runs are evaluated at once).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxscale.types import ModelShape

Number = Any  # a float, or an array [n] of the namespace in use


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """Which ops a model has. Rows of one batch share it."""

    gated: bool
    dense_layers: bool
    moe_layers: bool
    shared_experts: bool
    shared_gate: bool
    mla: bool
    q_lora: bool
    qk_norm: bool
    qk_norm_by_head: bool  # each head has scales of its own
    window: bool
    pre_norm: bool
    post_norm: bool
    parallel_block: bool
    parallel_shared_norm: bool
    tied: bool
    learned_positions: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeNumbers:
    """Sizes of a model; every field is a number or an array [n]."""

    structure: Structure
    num_layers: Number
    num_dense_layers: Number
    num_moe_layers: Number
    num_window_layers: Number
    d_model: Number
    num_heads: Number
    num_kv_heads: Number
    qk_head_dim: Number
    v_head_dim: Number
    d_ff: Number
    vocab_size: Number
    window: Number
    num_experts: Number
    experts_per_token: Number
    num_expert_groups: Number
    groups_per_token: Number
    expert_d_ff: Number
    shared_d_ff: Number
    q_lora_rank: Number
    kv_lora_rank: Number
    qk_rope_head_dim: Number
    qk_nope_head_dim: Number
    qk_norm_params: Number  # of one layer
    norm_width: Number  # parameters of one model-wide norm: d_model, twice that with a bias, 0 without a scale
    qkv_bias: Number
    attention_out_bias: Number
    mlp_bias: Number
    expert_bias: Number
    router_bias: Number
    attention_sinks: Number
    position_rows: Number
    logit_softcap: Number  # 1 where logits pass through a soft cap


def shape_numbers(shape: ModelShape) -> ShapeNumbers:
    """Read the numbers off a model shape."""
    moe, mla = shape.moe, shape.mla
    num_moe = shape.num_moe_layers
    structure = Structure(
        gated=shape.gated_mlp,
        dense_layers=num_moe < shape.num_layers,
        moe_layers=num_moe > 0,
        shared_experts=bool(moe and moe.num_shared_experts and num_moe),
        shared_gate=bool(moe and moe.shared_expert_gate),
        mla=mla is not None,
        q_lora=bool(mla and mla.q_lora_rank),
        qk_norm=shape.qk_norm != "none",
        qk_norm_by_head=shape.qk_norm == "full",
        window=shape.num_window_layers > 0,
        pre_norm=shape.norm_placement in ("pre", "sandwich"),
        post_norm=shape.norm_placement in ("post", "sandwich"),
        parallel_block=shape.parallel_block,
        parallel_shared_norm=shape.parallel_shared_norm,
        tied=shape.tied_embeddings,
        learned_positions=shape.positions == "learned",
    )
    norm_factor = int(shape.norm_scale) + int(shape.norm == "layernorm" and shape.norm_bias)
    if shape.qk_norm == "head":
        qk_norm_params = 2 * shape.head_dim * norm_factor
    elif shape.qk_norm == "full":
        qk_norm_params = (shape.num_heads + shape.num_kv_heads) * shape.head_dim * norm_factor
    else:
        qk_norm_params = 0
    return ShapeNumbers(
        structure=structure,
        num_layers=float(shape.num_layers),
        num_dense_layers=float(shape.num_layers - num_moe),
        num_moe_layers=float(num_moe),
        num_window_layers=float(shape.num_window_layers),
        d_model=float(shape.d_model),
        num_heads=float(shape.num_heads),
        num_kv_heads=float(shape.num_kv_heads),
        qk_head_dim=float(mla.qk_head_dim if mla else shape.head_dim),
        v_head_dim=float(mla.v_head_dim if mla else shape.head_dim),
        d_ff=float(shape.d_ff),
        vocab_size=float(shape.vocab_size),
        window=float(shape.window),
        num_experts=float(moe.num_experts if moe else 1),
        experts_per_token=float(moe.experts_per_token if moe else 1),
        num_expert_groups=float(moe.num_expert_groups if moe else 1),
        groups_per_token=float(moe.groups_per_token if moe else 1),
        expert_d_ff=float(moe.expert_d_ff if moe else 1),
        shared_d_ff=float(moe.num_shared_experts * moe.shared_expert_d_ff if moe else 0),
        q_lora_rank=float(mla.q_lora_rank if mla else 0),
        kv_lora_rank=float(mla.kv_lora_rank if mla else 0),
        qk_rope_head_dim=float(mla.qk_rope_head_dim if mla else 0),
        qk_nope_head_dim=float(mla.qk_nope_head_dim if mla else 0),
        qk_norm_params=float(qk_norm_params),
        norm_width=float(shape.d_model * norm_factor),
        qkv_bias=float(shape.qkv_bias),
        attention_out_bias=float(shape.attention_out_bias),
        mlp_bias=float(shape.mlp_bias),
        expert_bias=float(bool(moe and moe.expert_bias)),
        router_bias=float(bool(moe and moe.router_bias)),
        attention_sinks=float(shape.attention_sinks),
        position_rows=float(shape.max_seq_len if shape.positions == "learned" else 0),
        logit_softcap=float(shape.logit_softcap > 0),
    )


def stack_numbers(rows: Sequence[ShapeNumbers]) -> ShapeNumbers:
    """Stack models of one structure into arrays [n]."""
    structures = {row.structure for row in rows}
    assert len(structures) == 1, "rows of one batch share their structure"
    columns = {
        f.name: np.array([getattr(row, f.name) for row in rows])
        for f in dataclasses.fields(ShapeNumbers)
        if f.name != "structure"
    }
    return ShapeNumbers(structure=structures.pop(), **columns)
