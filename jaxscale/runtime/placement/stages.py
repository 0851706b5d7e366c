"""Which pipeline stage holds which layers, and how their parameters are stacked so that every stage runs one program.

The layers are cut, in order, into `pipeline * virtual_stages` chunks; chunk k belongs to stage k mod pipeline. Chunks
differ by at most one layer, the first ones being longer. Every chunk's parameters are padded to the same stacks:

* uniform: all chunks run the same kinds of layers in the same order, so a chunk is scanned as the zoo scans a model;
* tabled: they differ (uneven numbers of layers, a dense layer before sparse ones), so each kind of parameters has its
  own stack, as tall as the chunk that holds most of it, and a table tells what each slot of each chunk runs.

"Canonical" is the order of the zoo's parameters, which no layout changes: what checkpoints hold.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxscale.types import Layout, ModelShape
from jaxscale.zoo import LayerKind, Segment, layer_kinds, segments

Params = Any  # a tree of arrays, or of ParamInfos
Rows = list[list[int]]  # of one stack: [chunk][row] -> layer, -1 = padding


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """Layers of every chunk. `stacks` mirrors the stacked parameters' tree: for each stack, the layer in each row."""

    num_stages: int
    num_chunks: int  # of all stages
    kinds: tuple[LayerKind, ...]  # distinct kinds in order of first use
    chunk_segments: tuple[Segment, ...]  # uniform: the scans of one chunk; empty where tabled
    kind_stacks: tuple[int, ...]  # tabled: the stack of each kind
    slots: tuple[tuple[tuple[int, int], ...], ...]  # tabled: [chunk][slot] -> (kind, row); kind -1 = none
    stacks: tuple[tuple[tuple[int, ...], ...], ...]  # [segment][stack] -> layer of each row of all stages, -1 = padding

    @property
    def chunks_per_stage(self) -> int:
        """Virtual stages."""
        return self.num_chunks // self.num_stages


def split_layers(num_layers: int, num_chunks: int) -> tuple[range, ...]:
    """Layers of each chunk.

    >>> split_layers(6, 4)
    (range(0, 2), range(2, 4), range(4, 5), range(5, 6))
    """
    short, longer = divmod(num_layers, num_chunks)
    starts = [chunk * short + min(chunk, longer) for chunk in range(num_chunks + 1)]
    return tuple(range(a, b) for a, b in itertools.pairwise(starts))


def plan_stages(shape: ModelShape, layout: Layout) -> StagePlan:
    """Lay a model's layers out over the stages of a layout."""
    kinds = layer_kinds(shape)
    num_chunks = layout.pipeline * layout.virtual_stages
    chunks = split_layers(shape.num_layers, num_chunks)
    distinct = tuple(dict.fromkeys(kinds))
    uniform = len({tuple(kinds[layer] for layer in chunk) for chunk in chunks}) == 1
    chunk_segments, segment_stacks = _uniform(kinds, chunks) if uniform else ((), [_stacks(kinds, chunks)])
    return StagePlan(
        num_stages=layout.pipeline,
        num_chunks=num_chunks,
        kinds=distinct,
        chunk_segments=chunk_segments,
        kind_stacks=() if uniform else tuple(_structures_of(kinds).index(kind.moe) for kind in distinct),
        slots=() if uniform else _slots(kinds, chunks, distinct),
        stacks=tuple(tuple(_by_stage(rows, layout.pipeline) for rows in stacks) for stacks in segment_stacks),
    )


def _by_stage(rows_by_chunk: Sequence[Sequence[int]], num_stages: int) -> tuple[int, ...]:
    """Concatenate the rows of all chunks, those of one stage together: stage s holds chunks s, s + stages, ..."""
    order = [chunk for s in range(num_stages) for chunk in range(s, len(rows_by_chunk), num_stages)]
    return tuple(layer for chunk in order for layer in rows_by_chunk[chunk])


def _uniform(kinds: tuple[LayerKind, ...], chunks: tuple[range, ...]) -> tuple[tuple[Segment, ...], list[list[Rows]]]:
    """The segments of every chunk, and the stacks of each."""
    found = segments(tuple(kinds[layer] for layer in chunks[0]))
    stacks, first = [], 0
    for segment in found:
        period = len(segment.kinds)
        offsets = [[first + repeat * period + j for repeat in range(segment.repeats)] for j in range(period)]
        stacks.append([[[chunk[o] for o in offset] for chunk in chunks] for offset in offsets])
        first += segment.num_layers
    return found, stacks


def _structures_of(kinds: tuple[LayerKind, ...]) -> list[bool]:
    """Whether sparse or not, in order of first use: layers of one structure have the same parameters, and one stack."""
    return list(dict.fromkeys(kind.moe for kind in kinds))


def _stacks(kinds: tuple[LayerKind, ...], chunks: tuple[range, ...]) -> list[Rows]:
    """Tabled: one stack for each structure, as tall as the chunk that holds most of it."""
    stacks = []
    for moe in _structures_of(kinds):
        held = [[layer for layer in chunk if kinds[layer].moe == moe] for chunk in chunks]
        height = max(map(len, held))
        stacks.append([rows + [-1] * (height - len(rows)) for rows in held])
    return stacks


def _slots(
    kinds: tuple[LayerKind, ...], chunks: tuple[range, ...], distinct: tuple[LayerKind, ...]
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Tabled: what each chunk runs, slot by slot, as (kind, row of its stack)."""
    height = max(map(len, chunks))
    table = []
    for chunk in chunks:
        sparse = [kinds[layer].moe for layer in chunk]
        slots = [(distinct.index(kinds[layer]), sparse[:i].count(sparse[i])) for i, layer in enumerate(chunk)]
        table.append(tuple(slots + [(-1, 0)] * (height - len(slots))))
    return tuple(table)


@functools.lru_cache(maxsize=64)
def _canonical_rows(shape: ModelShape) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The layer in each row of the zoo's own stacks."""
    return plan_stages(shape, Layout()).stacks


def _structures(
    shape: ModelShape, stacks: Sequence[Sequence[Sequence[int]]]
) -> list[tuple[int, int, bool, np.ndarray]]:
    """(segment, stack, whether sparse, layer of each row) of every stack."""
    found = []
    for i, segment in enumerate(stacks):
        for j, rows in enumerate(segment):
            sparse = shape.is_moe_layer(next(layer for layer in rows if layer >= 0))
            found.append((i, j, sparse, np.asarray(rows)))
    return found


def _restack(shape: ModelShape, tree: Params, source: Any, target: Any) -> Params:
    """Move every layer's parameters from the rows of one set of stacks to those of another; padding rows are zero."""
    sources, targets = _structures(shape, source), _structures(shape, target)
    made: dict[tuple[int, int], Params] = {}
    for i, j, sparse, layers in targets:
        alike = [(a, b, rows) for a, b, s, rows in sources if s == sparse]
        held = np.concatenate([rows for _, _, rows in alike])
        place = {layer: row for row, layer in enumerate(held.tolist()) if layer >= 0}
        index = np.array([place.get(layer, len(held)) for layer in layers.tolist()])

        def move(*stacks: jax.Array, index: np.ndarray = index) -> jax.Array:
            return jnp.take(jnp.concatenate(stacks), index, axis=0, mode="fill", fill_value=0)

        made[i, j] = jax.tree.map(move, *(tree[a][b] for a, b, _ in alike))
    return tuple(tuple(made[i, j] for j in range(len(segment))) for i, segment in enumerate(target))


def pack(shape: ModelShape, plan: StagePlan, canonical: Params) -> Params:
    """The zoo's parameter tree, or any tree like it, with its layers stacked by stage."""
    rows = _canonical_rows(shape)
    if plan.stacks == rows:
        return canonical
    return canonical | {"segments": _restack(shape, canonical["segments"], rows, plan.stacks)}


def unpack(shape: ModelShape, plan: StagePlan, packed: Params) -> Params:
    """The inverse of `pack`; padding is dropped."""
    rows = _canonical_rows(shape)
    if plan.stacks == rows:
        return packed
    return packed | {"segments": _restack(shape, packed["segments"], plan.stacks, rows)}
