"""The op inventory: every op of a model, counted once. Prediction, compile check, remat and reports read it.

Notation: D d_model, N query heads, K kv heads, H head width, F d_ff, V vocabulary, E experts, k experts per token,
t tokens. All sizes are of the unsharded model; `shard` says which dim a layout's axes divide.

A layer is a small graph. Each op names the tensors it reads (`inputs`) and those that its backward pass needs
(`needs`), so that the cost of a remat policy follows from the graph and is not a constant: an op is recomputed when
its output is needed, is not saved, and only then are its own inputs needed in turn. That is why full remat is less
than one more forward pass: nothing in the backward pass asks for the output of the last matmul.

The names are the `checkpoint_name`s of the zoo's activations.
"""

from dataclasses import dataclass
from typing import Literal

from jaxscale.cost.numbers import Number, ShapeNumbers, shape_numbers
from jaxscale.types import ModelShape

OpKind = Literal["matmul", "attention", "elementwise", "gather", "exchange"]
# What tensor parallelism does to an op. column: weight split by its output, output split by heads or d_ff.
# row: weight split by its input, partial sums joined after it. whole: nothing split (sequence-split with SP).
OpShard = Literal["column", "row", "whole", "vocab"]

LAYER_INPUT = "layer_input"


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One op of a layer, for one token of the unsharded model unless said otherwise.

    A matmul is [t * rows, k] x [k, n], `groups` times (experts). `out` is the width of the output tensor in elements.
    An element-wise op moves `io` elements of memory a token in the forward pass.
    """

    name: str
    kind: OpKind
    shard: OpShard
    inputs: tuple[str, ...]
    needs: tuple[str, ...]
    out: Number
    rows: Number = 1.0
    k: Number = 0.0
    n: Number = 0.0
    io: Number = 0.0
    params: Number = 0.0  # weights, all experts
    active_params: Number | None = None  # weights one token meets; None = all
    small_params: Number = 0.0  # biases and norm scales
    by_head: bool = False  # these have a row for each head: a matrix to the runtime, which ZeRO splits
    expert: bool = False  # split by the expert axis
    extra_saved: Number = 0.0  # float32 values a token saved with the output (log-sum-exp of attention)

    @property
    def flops(self) -> Number:
        """Forward multiply-adds of one token times two; attention is counted by context length elsewhere."""
        return 2.0 * self.rows * self.k * self.n if self.kind == "matmul" else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Every op of a model: the attention half and the two kinds of MLP half of a layer, embedding and head."""

    numbers: ShapeNumbers
    attention: tuple[Op, ...]
    dense: tuple[Op, ...]
    moe: tuple[Op, ...]
    head: tuple[Op, ...]
    embedding_params: Number
    position_params: Number

    def layer(self, kind: Literal["dense", "moe"]) -> tuple[Op, ...]:
        """Ops of one whole layer."""
        return self.attention + (self.dense if kind == "dense" else self.moe)


def inventory(shape: ModelShape | ShapeNumbers) -> Inventory:
    """List the ops of a model."""
    s = shape if isinstance(shape, ShapeNumbers) else shape_numbers(shape)
    return Inventory(
        numbers=s,
        attention=_mla_ops(s) if s.structure.mla else _attention_ops(s),
        dense=_dense_mlp_ops(s) if s.structure.dense_layers else (),
        moe=_moe_ops(s) if s.structure.moe_layers else (),
        head=_head_ops(s),
        embedding_params=s.vocab_size * s.d_model,
        position_params=s.position_rows * s.d_model,
    )


def _norm(name: str, source: str, s: ShapeNumbers) -> Op:
    return Op(
        name=name, kind="elementwise", shard="whole", inputs=(source,), needs=(source,),
        out=s.d_model, io=2.0 * s.d_model, small_params=s.norm_width,
    )  # fmt: skip


def _gathered(name: str, source: str, s: ShapeNumbers) -> Op:
    """The input of column-parallel matmuls: all-gathered along the sequence under sequence parallelism."""
    return Op(name=name, kind="gather", shard="whole", inputs=(source,), needs=(), out=s.d_model)


def _linear(
    name: str, source: str, k: Number, n: Number, *, shard: OpShard, bias: Number = 0.0, rope: bool = False
) -> Op:
    return Op(
        name=name, kind="matmul", shard=shard, inputs=(source,), needs=(source,), out=n, k=k, n=n, params=k * n,
        small_params=bias * n, by_head=True, io=2.0 * n if rope else 0.0,
    )  # fmt: skip


def _attention_tail(s: ShapeNumbers, width: Number) -> tuple[Op, ...]:
    """Output projection, optional post-norm and the residual sum."""
    out = Op(
        name="attention_out", kind="matmul", shard="row", inputs=("attention",), needs=("attention",), out=s.d_model,
        k=width, n=s.d_model, params=width * s.d_model, small_params=s.attention_out_bias * s.d_model,
    )  # fmt: skip
    ops = [out]
    if s.structure.post_norm:
        ops.append(_norm("attention_post_norm", "attention_out", s))
    if not s.structure.parallel_block:
        ops.append(
            Op(
                name="attention_residual",
                kind="elementwise",
                shard="whole",
                inputs=(LAYER_INPUT, ops[-1].name),
                needs=(),
                out=s.d_model,
                io=3.0 * s.d_model,
            )
        )
    return tuple(ops)


def _attention_source(s: ShapeNumbers) -> tuple[Op, ...]:
    norm = (_norm("attention_norm", LAYER_INPUT, s),) if s.structure.pre_norm else ()
    source = "attention_norm" if norm else LAYER_INPUT
    return (*norm, _gathered("attention_in", source, s))


def _attention_ops(s: ShapeNumbers) -> tuple[Op, ...]:
    """MHA, GQA and MQA: fused rope and qk-norm are element-wise passes over q and k."""
    q_width, kv_width = s.num_heads * s.qk_head_dim, s.num_kv_heads * s.qk_head_dim
    v_width = s.num_kv_heads * s.v_head_dim
    x = "attention_in"
    if s.structure.qk_norm:
        q_norm_params = s.qk_norm_params * 0.5
        projections: tuple[Op, ...] = (
            _linear("q_proj", x, s.d_model, q_width, shard="column", bias=s.qkv_bias),
            _linear("k_proj", x, s.d_model, kv_width, shard="column", bias=s.qkv_bias),
            *(
                Op(
                    name=name,
                    kind="elementwise",
                    shard="column",
                    inputs=(f"{name}_proj",),
                    needs=(f"{name}_proj",),
                    out=width,
                    io=2.0 * width,
                    small_params=q_norm_params,
                    by_head=s.structure.qk_norm_by_head,
                )
                for name, width in (("q", q_width), ("k", kv_width))
            ),
        )
    else:
        projections = (
            _linear("q", x, s.d_model, q_width, shard="column", bias=s.qkv_bias, rope=True),
            _linear("k", x, s.d_model, kv_width, shard="column", bias=s.qkv_bias, rope=True),
        )
    value = _linear("v", x, s.d_model, v_width, shard="column", bias=s.qkv_bias)
    width = s.num_heads * s.v_head_dim
    return (*_attention_source(s), *projections, value, _core(s, width), *_attention_tail(s, width))


def _core(s: ShapeNumbers, width: Number) -> Op:
    return Op(
        name="attention", kind="attention", shard="column", inputs=("q", "k", "v"),
        needs=("q", "k", "v", "attention"), out=width, extra_saved=s.num_heads,
        small_params=s.attention_sinks * s.num_heads,
    )  # fmt: skip


def _mla_ops(s: ShapeNumbers) -> tuple[Op, ...]:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, eq. 9-19): low-rank q and kv, then heads."""
    x = "attention_in"
    q_width = s.num_heads * s.qk_head_dim
    latent = s.kv_lora_rank + s.qk_rope_head_dim
    if s.structure.q_lora:
        down = Op(
            name="q_down", kind="matmul", shard="whole", inputs=(x,), needs=(x,), out=s.q_lora_rank, k=s.d_model,
            n=s.q_lora_rank, params=s.d_model * s.q_lora_rank, small_params=s.q_lora_rank, io=2.0 * s.q_lora_rank,
        )  # fmt: skip
        queries: tuple[Op, ...] = (down, _linear("q", "q_down", s.q_lora_rank, q_width, shard="column", rope=True))
    else:
        queries = (_linear("q", x, s.d_model, q_width, shard="column", rope=True),)
    kv_down = Op(
        name="kv_down", kind="matmul", shard="whole", inputs=(x,), needs=(x,), out=latent, k=s.d_model, n=latent,
        params=s.d_model * latent, small_params=s.kv_lora_rank, io=2.0 * latent,
    )  # fmt: skip
    key = Op(
        name="k", kind="matmul", shard="column", inputs=("kv_down",), needs=("kv_down",),
        out=s.num_heads * s.qk_head_dim, k=s.kv_lora_rank, n=s.num_heads * s.qk_nope_head_dim,
        params=s.kv_lora_rank * s.num_heads * s.qk_nope_head_dim, io=2.0 * s.num_heads * s.qk_head_dim,
    )  # fmt: skip
    value = _linear("v", "kv_down", s.kv_lora_rank, s.num_heads * s.v_head_dim, shard="column")
    width = s.num_heads * s.v_head_dim
    return (*_attention_source(s), *queries, kv_down, key, value, _core(s, width), *_attention_tail(s, width))


def _mlp_source(s: ShapeNumbers) -> tuple[Op, ...]:
    residual = LAYER_INPUT if s.structure.parallel_block else "attention_residual"
    if s.structure.parallel_shared_norm:
        return (_gathered("mlp_in", "attention_norm", s),)
    norm = (_norm("mlp_norm", residual, s),) if s.structure.pre_norm else ()
    return (*norm, _gathered("mlp_in", "mlp_norm" if norm else residual, s))


def _mlp_tail(s: ShapeNumbers, source: str) -> tuple[Op, ...]:
    """Optional post-norm; the residual sum writes the next layer's input, which is always saved and counted there."""
    residual = Op(
        name="layer_output", kind="elementwise", shard="whole", inputs=(source,), needs=(), out=0.0, io=3.0 * s.d_model
    )
    if s.structure.post_norm:
        norm = _norm("mlp_post_norm", source, s)
        return (norm, residual)
    return (residual,)


def _feed_forward(
    s: ShapeNumbers,
    prefix: str,
    source: str,
    width: Number,
    *,
    bias: Number,
    rows: Number = 1.0,
    experts: Number | None = None,
) -> tuple[Op, ...]:
    """Gate and up, activation, down; of one MLP or of all experts."""
    copies = 1.0 if experts is None else experts
    expert = experts is not None

    def matmul(name: str, inputs: str, k: Number, n: Number, shard: OpShard) -> Op:
        return Op(
            name=f"{prefix}_{name}", kind="matmul", shard=shard, inputs=(inputs,), needs=(inputs,), out=rows * n,
            rows=rows, k=k, n=n, params=copies * k * n, active_params=rows * k * n, small_params=bias * copies * n,
            expert=expert,
        )  # fmt: skip

    ops = []
    if s.structure.gated:
        ops.append(matmul("gate", source, s.d_model, width, "column"))
    ops.append(matmul("up", source, s.d_model, width, "column"))
    produced = tuple(op.name for op in ops)
    ops.append(
        Op(
            name=f"{prefix}_act",
            kind="elementwise",
            shard="column",
            inputs=produced,
            needs=produced,
            out=rows * width,
            io=(len(produced) + 1.0) * rows * width,
            expert=expert,
        )
    )
    ops.append(matmul("down", f"{prefix}_act", width, s.d_model, "row"))
    return tuple(ops)


def _dense_mlp_ops(s: ShapeNumbers) -> tuple[Op, ...]:
    body = _feed_forward(s, "mlp", "mlp_in", s.d_ff, bias=s.mlp_bias)
    return (*_mlp_source(s), *body, *_mlp_tail(s, "mlp_down"))


def _moe_ops(s: ShapeNumbers) -> tuple[Op, ...]:
    """Router, dispatch to experts, experts, combine; shared experts beside them."""
    k = s.experts_per_token
    router = Op(
        name="router", kind="matmul", shard="whole", inputs=("mlp_in",), needs=("mlp_in", "router"), out=s.num_experts,
        k=s.d_model, n=s.num_experts, params=s.d_model * s.num_experts, small_params=s.router_bias * s.num_experts,
        io=4.0 * s.num_experts,
    )  # fmt: skip
    dispatch = Op(
        name="dispatch", kind="exchange", shard="whole", inputs=("mlp_in", "router"), needs=(), out=k * s.d_model,
        rows=k, io=2.0 * k * s.d_model, expert=True,
    )  # fmt: skip
    experts = _feed_forward(s, "expert", "dispatch", s.expert_d_ff, bias=s.expert_bias, rows=k, experts=s.num_experts)
    # The weight of each expert multiplies its output, so the router's gradient needs that output.
    combine = Op(
        name="combine", kind="exchange", shard="whole", inputs=("expert_down", "router"),
        needs=("expert_down", "router"), out=s.d_model, rows=k, io=(k + 1.0) * s.d_model, expert=True,
    )  # fmt: skip
    shared: tuple[Op, ...] = ()
    if s.structure.shared_experts:
        shared = _feed_forward(s, "shared", "mlp_in", s.shared_d_ff, bias=0.0 * s.mlp_bias)
        if s.structure.shared_gate:
            # It multiplies the shared experts' output: either's gradient needs the other.
            gate = Op(
                name="shared_router", kind="matmul", shard="whole", inputs=("mlp_in",),
                needs=("mlp_in", "shared_router", "shared_down"), out=1.0, k=s.d_model, n=1.0,
                params=s.d_model,
            )  # fmt: skip
            shared = (*shared, gate)
    return (*_mlp_source(s), router, dispatch, *experts, combine, *shared, *_mlp_tail(s, "combine"))


def _head_ops(s: ShapeNumbers) -> tuple[Op, ...]:
    """Final norm, logits and the loss; the embedding table is counted in `Inventory.embedding_params`."""
    tied = s.structure.tied
    logits = Op(
        name="logits", kind="matmul", shard="vocab", inputs=("final_norm",), needs=("final_norm", "logits"),
        out=s.vocab_size, k=s.d_model, n=s.vocab_size, params=0.0 if tied else s.d_model * s.vocab_size,
        active_params=s.d_model * s.vocab_size, io=6.0 * s.vocab_size,
    )  # fmt: skip
    return (_norm("final_norm", LAYER_INPUT, s), logits)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Parameters of a model; `total` counts tied embeddings once and `active` the experts one token meets."""

    total: int
    active: int
    embedding: int  # input embedding, learned positions, and the output head where it is not tied
    attention: int
    mlp: int  # dense MLPs, shared experts and routers
    experts: int
    norm: int  # the norms of the residual stream


def count_parameters(shape: ModelShape) -> ParameterCount:
    """Count the parameters of a model exactly, from the same inventory that the cost model prices."""
    inv = inventory(shape)
    s = inv.numbers
    groups = (
        (inv.attention, s.num_layers),
        (inv.dense, s.num_dense_layers),
        (inv.moe, s.num_moe_layers),
        (inv.head, 1),
    )
    sums = {"attention": 0.0, "mlp": 0.0, "experts": 0.0, "norm": 0.0, "embedding": 0.0}
    active = inv.position_params + inv.embedding_params
    sums["embedding"] = inv.embedding_params + inv.position_params
    for ops, layers in groups:
        for op in ops:
            part = _part(op)
            sums[part] += layers * (op.params + op.small_params)
            if op.name == "logits":
                active += op.params
            elif op.expert:
                share = s.experts_per_token / s.num_experts
                active += layers * (op.params + op.small_params) * share
            else:
                active += layers * (op.params + op.small_params)
    return ParameterCount(
        total=round(sum(sums.values())), active=round(active), **{part: round(value) for part, value in sums.items()}
    )


def _part(op: Op) -> str:
    if op.name == "logits":
        return "embedding"
    if op.expert:
        return "experts"
    if op.name.endswith("norm"):
        return "norm"
    if op.name.startswith(("mlp", "shared", "router")):
        return "mlp"
    return "attention"
