"""The weights that one device is responsible for, before any ZeRO splitting: by ZeRO group and by part of the model."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxscale.cost.inventory import Op
from jaxscale.cost.numbers import Number, ShapeNumbers
from jaxscale.cost.problem import Problem
from jaxscale.types import LayoutBatch

DENSE_GROUP = ("fsdp", "expert", "context")
EXPERT_GROUP = ("fsdp", "context")
Part = Literal["layers", "embedding", "head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """Vectors (biases, norm scales), which ZeRO leaves whole, by what the tensor axis does to their gradients."""

    split: Number = 0.0  # the parameter itself is split
    stream: Number = 0.0  # partial sums where the sequence is split too (sequence parallelism)
    partial: Number = 0.0  # always partial sums: every rank meets its own heads or experts only

    @property
    def elements(self) -> Number:
        """All of them, on one rank."""
        return self.split + self.stream + self.partial


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A set of weights that is gathered, reduced and split alike.

    `elements` are on one tensor- and expert-parallel rank, unsplit by ZeRO; `arrays` how many matrices they come in.
    """

    part: Part
    group: tuple[str, ...]
    elements: Number
    small: Small
    arrays: float
    partial: Number = 0.0  # 1 where gradients are partial sums over the tensor axis, though the weight is whole there
    gathered_again: Number = 1.0  # 1 where every microbatch gathers them twice, if ZeRO splits the parameters
    lines: Number = 0.0  # rows and columns of its matrices, whole: what a factored optimizer keeps a number for
    uses: Number = 1.0  # places whose gradients are reduced apart: two for an embedding that is the head too


def layer_weights(p: Problem, kind: Literal["dense", "moe"], layouts: LayoutBatch) -> tuple[Weights, ...]:
    """Weights of one layer: dense ones, and experts where there are any."""
    ops = p.inventory.layer(kind)
    dense, whole, experts = [], [], []
    for op in ops:
        if op.expert:
            experts.append(op)
        else:
            (whole if op.kind == "matmul" and op.shard == "whole" else dense).append(op)
    sets = [_weights(p, DENSE_GROUP, dense, layouts), _weights(p, DENSE_GROUP, whole, layouts, partial=1.0)]
    sets.append(_weights(p, EXPERT_GROUP, experts, layouts))
    return tuple(weights for weights in sets if weights.arrays)


def _weights(
    p: Problem, group: tuple[str, ...], ops: Iterable[Op], layouts: LayoutBatch, *, partial: float = 0.0
) -> Weights:
    elements: Number = 0.0
    lines: Number = 0.0
    arrays = 0.0
    small: dict[str, Number] = {"split": 0.0, "stream": 0.0, "partial": 0.0}
    for op in ops:
        split = 1.0 if op.shard == "whole" else layouts.tensor
        experts = layouts.expert if op.expert else 1.0
        elements = elements + op.params / (split * experts)
        if op.kind == "matmul":
            arrays += 1.0
            lines = lines + _lines(op, p.inventory.numbers) / experts
        if op.by_head and p.stack.spmd:
            elements = elements + op.small_params / split
            continue
        kind = _small_kind(op)
        small[kind] = small[kind] + op.small_params / experts / (layouts.tensor if kind == "split" else 1.0)
    return Weights(
        part="layers", group=group, elements=elements, small=Small(**small), arrays=arrays, partial=partial, lines=lines
    )


def _lines(op: Op, s: ShapeNumbers) -> Number:
    """Rows and columns of an op's matrices; those of heads are a matrix each, over the model's width."""
    copies = op.params / (op.k * op.n)
    if op.name == "attention_out":
        return copies * (op.k + op.n * s.num_heads)
    heads = op.n / (s.v_head_dim if op.name == "v" else s.qk_head_dim) if op.by_head else 1.0
    return copies * (op.k * heads + op.n)


def _small_kind(op: Op) -> str:
    """A bias follows its matmul's output; a norm follows the stream, unless it is of heads or latents."""
    if op.kind in ("matmul", "attention") and op.shard == "column":
        return "split"
    if op.expert or (op.kind == "matmul" and op.shard == "whole") or op.shard == "column":
        return "partial"
    return "stream"


def vocabulary_weights(p: Problem, layouts: LayoutBatch) -> tuple[Weights, ...]:
    """Embedding table with learned positions, and the head: its own matrix unless tied, and the final norm.

    Where every pipeline stage runs the same program, their ZeRO group includes the pipeline axis.
    """
    inv = p.inventory
    group = (*DENSE_GROUP, "pipeline") if p.stack.spmd else DENSE_GROUP
    tied = inv.numbers.structure.tied
    vocabulary = padded_vocabulary(p, layouts) / layouts.tensor * inv.numbers.d_model
    table_lines = inv.numbers.vocab_size + inv.numbers.d_model
    position_lines = inv.numbers.structure.learned_positions * (inv.numbers.position_rows + inv.numbers.d_model)
    # XLA for CPUs gathers a tied table once for the lookup and the head, where both are in one loop.
    merged = (layouts.pipeline == 1) * (p.device.kind == "cpu")
    embedding = Weights(
        part="embedding",
        group=group,
        elements=vocabulary + inv.position_params,
        small=Small(),
        arrays=1.0,
        gathered_again=tied * (1.0 - merged),
        lines=table_lines + position_lines,
        uses=1.0 + (layouts.pipeline == 1) * (tied and p.stack.spmd),
    )
    norm = sum(op.small_params for op in inv.head)
    head = Weights(
        part="head",
        group=group,
        elements=0.0 * vocabulary if tied else vocabulary,
        small=Small(stream=norm),
        arrays=1.0,
        gathered_again=0.0,
        lines=0.0 if tied else table_lines,
    )
    return (embedding, head)


def held_vocabulary(p: Problem, layouts: LayoutBatch) -> tuple[Weights, ...]:
    """Embedding and head as the busiest stage holds them: of several unlike stages, one of the two."""
    embedding, head = vocabulary_weights(p, layouts)
    if p.stack.spmd:
        return (embedding, head)
    alone = (layouts.pipeline == 1) * 1.0
    return (embedding, dataclasses.replace(head, elements=head.elements * alone))


def moved_vocabulary(p: Problem, layouts: LayoutBatch) -> tuple[Weights, ...]:
    """Embedding and head as they are gathered and summed: learned positions apart from the table of tokens.

    They are whole on every tensor rank, which meets a part of the sequence only under sequence parallelism.
    """
    embedding, head = held_vocabulary(p, layouts)
    rows = p.inventory.position_params
    if not np.any(rows):
        return (embedding, head)
    tokens = dataclasses.replace(embedding, elements=embedding.elements - rows)
    split = (layouts.sequence_parallel > 0) * 1.0
    positions = dataclasses.replace(embedding, elements=rows, gathered_again=0.0, uses=1.0, partial=split)
    return (tokens, positions, head)


def padded_vocabulary(p: Problem, layouts: LayoutBatch) -> Number:
    """Rows of the embedding, padded to a multiple of the tensor degree."""
    rows = p.inventory.numbers.vocab_size
    return -(-rows // layouts.tensor) * layouts.tensor
