"""The decoder: embedding, segments of stacked layers, head; as NNX modules and as pure functions on their parameters.

Parameters are a plain tree of arrays:

    {"embedding": {...}, "segments": (({...}, ...), ...), "head": {...}}

`segments[i][j]` holds the j-th layer kind of segment i, every leaf with a leading dim of the segment's repeats.
A model of equal layers is one segment of one kind; Gemma 2 is one segment whose body is a window layer and a full one.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jaxscale.types import ModelShape
from jaxscale.zoo.attention import Attention, LatentAttention
from jaxscale.zoo.comms import Comms, LocalComms
from jaxscale.zoo.kernels import Execution
from jaxscale.zoo.layers import Context, FeedForward, Norm, Run
from jaxscale.zoo.moe import MoE
from jaxscale.zoo.params import ParamInfo, info_of, param
from jaxscale.zoo.rope import rope_table
from jaxscale.zoo.routing import RoutingStats

Array = jax.Array
Params = Any  # a tree of arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKind:
    """What distinguishes one layer of a model from another."""

    moe: bool
    window: int  # 0 = full attention


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """`repeats` times the layers `kinds`, in this order: one scan."""

    repeats: int
    kinds: tuple[LayerKind, ...]

    @property
    def num_layers(self) -> int:
        """Layers of the model that this segment is."""
        return self.repeats * len(self.kinds)


def layer_kinds(shape: ModelShape) -> tuple[LayerKind, ...]:
    """The kind of each layer in order."""
    return tuple(
        LayerKind(moe=shape.is_moe_layer(i), window=shape.window if shape.is_window_layer(i) else 0)
        for i in range(shape.num_layers)
    )


def segments(kinds: tuple[LayerKind, ...]) -> tuple[Segment, ...]:
    """Compress a list of layers into few segments: at each place the pattern that repeats over most layers."""
    found: list[Segment] = []
    start = 0
    while start < len(kinds):
        repeats, period = max(
            ((_repeats(kinds[start:], period), period) for period in range(1, len(kinds) - start + 1)),
            key=lambda rp: (rp[0] * rp[1] if rp[0] > 1 else 1, -rp[1]),
        )
        period = period if repeats > 1 else 1
        found.append(Segment(repeats=repeats, kinds=kinds[start : start + period]))
        start += repeats * period
    return tuple(found)


def _repeats(kinds: tuple[LayerKind, ...], period: int) -> int:
    """How often the first `period` kinds come in a row."""
    count = 1
    while kinds[count * period : (count + 1) * period] == kinds[:period]:
        count += 1
    return count


class Embedding(nnx.Module):
    """Token table, split by vocabulary over the tensor axis, and learned positions where the model has them."""

    def __init__(self, shape: ModelShape, *, vocab_size: int, rngs: nnx.Rngs):
        self.shape = shape
        self.table = param(
            rngs, (shape.vocab_size, shape.d_model), ("vocab", "d_model"), fan_in=shape.d_model,
            pad=(vocab_size - shape.vocab_size, 0),
        )  # fmt: skip
        self.positions = _position_table(shape, rngs) if shape.positions == "learned" else None

    def __call__(self, tokens: Array, positions: Array, *, comms: Comms, dtype: Any) -> Array:
        """Tokens [b, t] -> residual stream [b, t, D], or [b, t/tp, D] with sequence parallelism."""
        table = self.table[...]
        local = tokens - comms.tensor_index() * table.shape[0]
        held = (local >= 0) & (local < table.shape[0])
        rows = table[jnp.where(held, local, 0)].astype(dtype)
        x = comms.embed_reduce(jnp.where(held[..., None], rows, 0))
        if self.shape.embedding_scale != 1.0:
            x = x * jnp.asarray(self.shape.embedding_scale, dtype)
        if self.positions is not None:
            x = x + self.positions[...].astype(dtype)[comms.stream_slice(positions)]
        return x


def _position_table(shape: ModelShape, rngs: nnx.Rngs) -> nnx.Param:
    size, dims = (shape.max_seq_len, shape.d_model), ("positions", "d_model")
    return param(rngs, size, dims, fan_in=shape.d_model, tensor_grad="sequence")


class Block(nnx.Module):
    """One transformer layer: attention and feed-forward, each between optional norms, added to the residual stream."""

    def __init__(self, shape: ModelShape, kind: LayerKind, *, rngs: nnx.Rngs):
        self.shape, self.kind = shape, kind
        pre, post = shape.norm_placement in ("pre", "sandwich"), shape.norm_placement in ("post", "sandwich")
        self.attention_norm = Norm(shape, rngs=rngs) if pre else None
        self.attention = (LatentAttention if shape.mla else Attention)(shape, rngs=rngs)
        self.attention_post_norm = Norm(shape, rngs=rngs) if post else None
        self.mlp_norm = Norm(shape, rngs=rngs) if pre and not shape.parallel_shared_norm else None
        if kind.moe:
            self.mlp: MoE | FeedForward = MoE(shape, rngs=rngs)
        else:
            self.mlp = FeedForward(shape, width=shape.d_ff, dim="d_ff", prefix="mlp", bias=shape.mlp_bias, rngs=rngs)
        self.mlp_post_norm = Norm(shape, rngs=rngs) if post else None

    def __call__(self, x: Array, context: Context, run: Run) -> tuple[Array, RoutingStats | None]:
        """Residual stream -> (residual stream, routing statistics of a sparse layer)."""
        normed = _named(self.attention_norm, x, "attention_norm")
        h = checkpoint_name(run.comms.enter_column(normed), "attention_in")
        attended = self.attention(h, context, run, window=self.kind.window)
        attended = _named(self.attention_post_norm, attended, "attention_post_norm")
        if self.shape.parallel_block:
            source = normed if self.shape.parallel_shared_norm else _named(self.mlp_norm, x, "mlp_norm")
            mixed, stats = self._feed_forward(source, run)
            return x + attended + mixed, stats
        x = checkpoint_name(x + attended, "attention_residual")
        mixed, stats = self._feed_forward(_named(self.mlp_norm, x, "mlp_norm"), run)
        return x + mixed, stats

    def _feed_forward(self, normed: Array, run: Run) -> tuple[Array, RoutingStats | None]:
        h = checkpoint_name(run.comms.enter_column(normed), "mlp_in")
        y, stats = self.mlp(h, run) if isinstance(self.mlp, MoE) else (self.mlp(h, run), None)
        return _named(self.mlp_post_norm, y, "mlp_post_norm"), stats


def _named(norm: Norm | None, x: Array, name: str) -> Array:
    return x if norm is None else checkpoint_name(norm(x), name)


class Head(nnx.Module):
    """Final norm and the output projection, which a model with tied embeddings does not have."""

    def __init__(self, shape: ModelShape, *, vocab_size: int, rngs: nnx.Rngs):
        self.shape = shape
        self.norm = Norm(shape, rngs=rngs)
        self.kernel = None if shape.tied_embeddings else _output_kernel(shape, vocab_size, rngs)

    def __call__(self, x: Array, table: Array | None, *, comms: Comms) -> Array:
        """Residual stream -> logits of the vocabulary held here, [b, t, V/tp]."""
        x = comms.enter_column(checkpoint_name(self.norm(x), "final_norm"))
        if self.kernel is None:
            assert table is not None, "tied embeddings: the table is the head"
            logits = jnp.einsum("btd,vd->btv", x, table.astype(x.dtype))
        else:
            logits = jnp.einsum("btd,dv->btv", x, self.kernel[...].astype(x.dtype))
        if self.shape.logit_softcap:
            logits = self.shape.logit_softcap * jnp.tanh(logits / self.shape.logit_softcap)
        return checkpoint_name(logits, "logits")


def _output_kernel(shape: ModelShape, vocab_size: int, rngs: nnx.Rngs) -> nnx.Param:
    size, padding = (shape.d_model, shape.vocab_size), (0, vocab_size - shape.vocab_size)
    return param(rngs, size, ("d_model", "vocab"), fan_in=shape.d_model, pad=padding)


def padded_vocab(shape: ModelShape, multiple: int) -> int:
    """Vocabulary rounded up to a multiple of the tensor degree."""
    return -(-shape.vocab_size // multiple) * multiple


def _modules(shape: ModelShape, vocab_multiple: int, rngs: nnx.Rngs) -> tuple[Embedding, Head]:
    vocab = padded_vocab(shape, vocab_multiple)
    return Embedding(shape, vocab_size=vocab, rngs=rngs), Head(shape, vocab_size=vocab, rngs=rngs)


@functools.lru_cache(maxsize=256)
def _abstract(shape: ModelShape, part: LayerKind | str, vocab_multiple: int = 1) -> tuple[Any, Any]:
    """(graph definition, abstract state) of one layer kind, of "embedding" or of "head"."""

    def build() -> nnx.Module:
        rngs = nnx.Rngs(0)
        if isinstance(part, LayerKind):
            return Block(shape, part, rngs=rngs)
        return dict(zip(("embedding", "head"), _modules(shape, vocab_multiple, rngs), strict=True))[part]

    return nnx.split(nnx.eval_shape(build))


def parameter_info(shape: ModelShape, *, vocab_multiple: int = 1) -> Params:
    """Every parameter as a `ParamInfo`, in the tree that `init_params` fills; no memory, whatever the size."""

    def infos(part: LayerKind | str, stacked: int = 0) -> Params:
        state = nnx.to_flat_state(_abstract(shape, part, vocab_multiple)[1])
        flat = {path: info_of(variable, stacked=stacked) for path, variable in state}
        return _nest(flat)

    return {
        "embedding": infos("embedding"),
        "segments": tuple(tuple(infos(k, s.repeats) for k in s.kinds) for s in segments(layer_kinds(shape))),
        "head": infos("head"),
    }


def _nest(flat: dict[tuple[Any, ...], ParamInfo]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node[path[-1]] = leaf
    return tree


def abstract_params(shape: ModelShape, *, vocab_multiple: int = 1) -> Params:
    """Every parameter as a `jax.ShapeDtypeStruct`."""
    infos = parameter_info(shape, vocab_multiple=vocab_multiple)
    return jax.tree.map(lambda i: jax.ShapeDtypeStruct(i.shape, i.dtype), infos)


def _pure(module: nnx.Module) -> Params:
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


def init_params(shape: ModelShape, key: Array, *, vocab_multiple: int = 1) -> Params:
    """Random float32 parameters; traceable, so that `jax.jit(..., out_shardings=...)` fills shards in place."""
    head_key, *keys = jax.random.split(key, 1 + shape.num_layers)
    embedding, head = _modules(shape, vocab_multiple, nnx.Rngs(head_key))
    stacks, first = [], 0
    for segment in segments(layer_kinds(shape)):
        own = jnp.stack(keys[first : first + segment.num_layers]).reshape(segment.repeats, len(segment.kinds))
        stacks.append(
            tuple(
                jax.vmap(lambda k, kind=kind: _pure(Block(shape, kind, rngs=nnx.Rngs(k))))(own[:, j])
                for j, kind in enumerate(segment.kinds)
            )
        )
        first += segment.num_layers
    return {"embedding": _pure(embedding), "segments": tuple(stacks), "head": _pure(head)}


def make_context(
    shape: ModelShape, positions: Array, segments: Array | None = None, *, seq_len: int | None = None
) -> Context:
    """Positions and rotary tables of a context shard; `seq_len` is the length of the whole sequence."""
    length = positions.shape[-1] if seq_len is None else seq_len
    tables = (None, None)
    if shape.positions == "rope":
        tables = tuple(rope_table(shape, positions, seq_len=length, local=local) for local in (False, True))
    return Context(positions=positions, segments=segments, rope=tables[0], local_rope=tables[1])


def document_positions(seq_len: int, segment_ids: Array | None = None) -> Array:
    """Place of each token in its document, [1|b, t] int32; packed documents are runs of one segment id [b, t]."""
    index = jnp.arange(seq_len, dtype=jnp.int32)[None]
    if segment_ids is None:
        return index
    starts = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)))
    return index - jax.lax.cummax(jnp.where(starts, index, 0), axis=1)


def embed(
    shape: ModelShape, params: Params, tokens: Array, positions: Array, *, comms: Comms, dtype: Any = jnp.float32
) -> Array:
    """`params["embedding"]`, tokens [b, t], positions [1|b, t] -> residual stream in `dtype`."""
    return nnx.merge(_abstract(shape, "embedding")[0], params)(tokens, positions, comms=comms, dtype=dtype)


LayerBody = Callable[[Params, Array, Context], tuple[Array, Any]]


def layer_body(shape: ModelShape, kind: LayerKind, *, comms: Comms, execution: Execution) -> LayerBody:
    """One layer as a pure function (layer parameters, stream, context) -> (stream, routing statistics or None)."""
    graph, run = _abstract(shape, kind)[0], Run(comms=comms, execution=execution)

    def body(params: Params, x: Array, context: Context) -> tuple[Array, Any]:
        return nnx.merge(graph, params)(x, context, run)

    return body


def head_logits(shape: ModelShape, params: Params, embedding: Params, x: Array, *, comms: Comms) -> Array:
    """`params["head"]`, `params["embedding"]`, stream -> logits [b, t, V/tp] of the vocabulary held here."""
    table = embedding["table"] if shape.tied_embeddings else None
    return nnx.merge(_abstract(shape, "head")[0], params)(x, table, comms=comms)


def forward(
    shape: ModelShape,
    params: Params,
    tokens: Array,
    *,
    segment_ids: Array | None = None,
    execution: Execution | None = None,
    dtype: Any = jnp.float32,
) -> tuple[Array, tuple[Any, ...]]:
    """The whole model on one device: tokens [b, t] -> (final residual stream, routing statistics by segment)."""
    comms, execution = LocalComms(), execution or Execution()
    positions = document_positions(tokens.shape[1], segment_ids)
    context = make_context(shape, positions, segment_ids)
    x = embed(shape, params["embedding"], tokens, positions, comms=comms, dtype=dtype)
    stats = []
    for segment, stack in zip(segments(layer_kinds(shape)), params["segments"], strict=True):
        bodies = [layer_body(shape, kind, comms=comms, execution=execution) for kind in segment.kinds]

        def step(x: Array, layers: Params, bodies: Any = bodies) -> tuple[Array, Any]:
            found = []
            for body, layer in zip(bodies, layers, strict=True):
                x, stat = body(layer, x, context)
                found.append(stat)
            return x, tuple(found)

        x, found = jax.lax.scan(step, x, stack)
        stats.append(found)
    return x, tuple(stats)


def logits(shape: ModelShape, params: Params, tokens: Array, **options: Any) -> Array:
    """Logits [b, t, V] of the whole model on one device, for oracles and small experiments."""
    x, _ = forward(shape, params, tokens, **options)
    return head_logits(shape, params["head"], params["embedding"], x, comms=LocalComms())[..., : shape.vocab_size]
