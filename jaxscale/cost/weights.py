"""The weights that one device is responsible for, before any ZeRO splitting: by ZeRO group and by part of the model."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from jaxscale.cost.inventory import Op
from jaxscale.cost.numbers import Number
from jaxscale.cost.problem import Problem
from jaxscale.types import LayoutBatch

DENSE_GROUP = ("fsdp", "expert", "context")
EXPERT_GROUP = ("fsdp", "context")
Part = Literal["layers", "embedding", "head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A set of weights that is gathered, reduced and split alike.

    `elements` are on one tensor- and expert-parallel rank, unsplit by ZeRO; `arrays` how many arrays they come in;
    `small` are biases and norm scales, which no one splits.
    """

    part: Part
    group: tuple[str, ...]
    elements: Number
    small: Number
    arrays: float
    gathered_again: bool = True  # a second time in every microbatch, where ZeRO splits the parameters


def layer_weights(p: Problem, kind: Literal["dense", "moe"], layouts: LayoutBatch) -> tuple[Weights, ...]:
    """Weights of one layer: dense ones, and experts where there are any."""
    ops = p.inventory.layer(kind)
    dense = _weights("layers", DENSE_GROUP, [op for op in ops if not op.expert], layouts)
    experts = [op for op in ops if op.expert and op.kind == "matmul"]
    if not experts:
        return (dense,)
    return (dense, _weights("layers", EXPERT_GROUP, experts, layouts))


def _weights(part: Part, group: tuple[str, ...], ops: Iterable[Op], layouts: LayoutBatch) -> Weights:
    elements: Number = 0.0
    small: Number = 0.0
    arrays = 0.0
    for op in ops:
        split = 1.0 if op.shard == "whole" else layouts.tensor
        experts = layouts.expert if op.expert else 1.0
        elements = elements + op.params / (split * experts)
        # A bias follows its matmul's output: split for column-parallel ones, whole after a row-parallel one.
        small = small + op.small_params / ((layouts.tensor if op.shard == "column" else 1.0) * experts)
        arrays += bool(op.kind == "matmul")
    return Weights(part=part, group=group, elements=elements, small=small, arrays=max(arrays, 1.0))


def vocabulary_weights(p: Problem, layouts: LayoutBatch) -> tuple[Weights, ...]:
    """Embedding table with learned positions, and the head: its own matrix unless tied, and the final norm.

    Where every pipeline stage runs the same program, their ZeRO group includes the pipeline axis.
    """
    inv = p.inventory
    group = (*DENSE_GROUP, "pipeline") if p.stack.spmd else DENSE_GROUP
    tied = inv.numbers.structure.tied
    vocabulary = padded_vocabulary(p, layouts) / layouts.tensor * inv.numbers.d_model
    embedding = Weights(
        part="embedding",
        group=group,
        elements=vocabulary + inv.position_params,
        small=0.0,
        arrays=1.0,
        gathered_again=tied,
    )
    norm = sum(op.small_params for op in inv.head)
    head = Weights(
        part="head",
        group=group,
        elements=0.0 * vocabulary if tied else vocabulary,
        small=norm,
        arrays=1.0,
        gathered_again=False,
    )
    return (embedding, head)


def held_vocabulary(p: Problem, layouts: LayoutBatch) -> tuple[Weights, ...]:
    """Embedding and head as the busiest stage holds them: of several unlike stages, the first or the last one's matrix."""
    embedding, head = vocabulary_weights(p, layouts)
    if p.stack.spmd:
        return (embedding, head)
    alone = (layouts.pipeline == 1) * 1.0
    return (embedding, dataclasses.replace(head, elements=head.elements * alone))


def padded_vocabulary(p: Problem, layouts: LayoutBatch) -> Number:
    """Rows of the embedding, padded to a multiple of the tensor degree."""
    rows = p.inventory.numbers.vocab_size
    return -(-rows // layouts.tensor) * layouts.tensor
