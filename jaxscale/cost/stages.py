"""Memory of a pipeline whose stages are different programs: each holds only what it uses (torch, not XLA).

The first stage holds the embedding and, in 1F1B, the most microbatches; the last holds the head, one microbatch and its
logits. The peak is that of the fuller of the two; a single stage is both. A tied head keeps its own copy of the
embedding on the last stage (Megatron-LM, Narayanan et al. 2021, section 4.1).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxscale.cost.memory import StateBytes, gathered_bytes, head_weights_bytes, state_bytes
from jaxscale.cost.numbers import Number
from jaxscale.cost.parts import Parts
from jaxscale.cost.problem import Problem
from jaxscale.cost.weights import DENSE_GROUP, Weights, layer_weights, vocabulary_weights
from jaxscale.schedule import in_flight
from jaxscale.types import LayoutBatch
from jaxscale.types.layout import SCHEDULES


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Bytes of one stage by part, and the microbatches it holds."""

    state: StateBytes
    activations: Number
    working: Number
    logits: Number
    gathered: Number

    def total(self) -> Number:
        """Bytes at the stage's own peak, without what is reserved outside it."""
        s = self.state
        return s.parameters + s.gradients + s.optimizer + self.activations + self.working + self.logits + self.gathered


def stage_peaks(p: Problem, layouts: LayoutBatch, pieces: Parts) -> tuple[dict[str, Number], Number]:
    """Bytes at the peak of the fullest stage by part, and bytes in host memory; arrays [n]."""
    xp = p.xp
    alone = layouts.pipeline == 1
    embedding, head = vocabulary_weights(p, layouts)
    embedding, head = (_own(weights) for weights in (embedding, _with_copy(p, embedding, head, alone)))
    first = _stage(p, layouts, pieces, (embedding,), position=0, at_head=alone, also=(head, alone))
    last = _stage(p, layouts, pieces, (head,), position=-1, at_head=layouts.pipeline > 0, also=(embedding, alone))
    fuller = last.total() > first.total()

    def pick(of: Any) -> Number:
        return xp.where(fuller, of(last), of(first))

    offload = layouts.offload_optimizer > 0
    optimizer = pick(lambda s: s.state.optimizer)
    parts = {
        "parameters": pick(lambda s: s.state.parameters),
        "gradients": pick(lambda s: s.state.gradients),
        "optimizer": xp.where(offload, 0.0, optimizer),
        "activations": pick(lambda s: s.activations),
        "working": pick(lambda s: s.working),
        "logits": pick(lambda s: s.logits),
        "gathered weights": pick(lambda s: s.gathered),
    }
    spread = p.stack.fragmentation_frac * sum(
        parts[k] for k in ("activations", "working", "logits", "gathered weights")
    )
    parts["reserved"] = p.stack.reserved_bytes + spread
    held = _held(layouts, pieces.num_microbatches, 0)
    host = held * sum(pieces.slots[k] * layer.offloaded_bytes for k, layer in pieces.layers.items())
    return parts, host + xp.where(offload, optimizer, 0.0)


def _own(weights: Weights) -> Weights:
    """Only the ranks of one stage share its weights, so that their ZeRO group leaves the pipeline axis out."""
    return Weights(
        part=weights.part, group=DENSE_GROUP, elements=weights.elements, small=weights.small, arrays=1.0,
        lines=weights.lines,
    )  # fmt: skip


def _with_copy(p: Problem, embedding: Weights, head: Weights, alone: np.ndarray) -> Weights:
    """The head with the copy of a tied embedding that the last of several stages keeps."""
    if not p.inventory.numbers.structure.tied:
        return head
    elements = head.elements + np.where(alone, 0.0, 1.0) * embedding.elements
    return Weights(part=head.part, group=head.group, elements=elements, small=head.small, arrays=1.0)


def _stage(
    p: Problem,
    layouts: LayoutBatch,
    pieces: Parts,
    vocabulary: tuple[Weights, ...],
    *,
    position: int,
    at_head: np.ndarray,
    also: tuple[Weights, np.ndarray],
) -> _Stage:
    """One stage; `also` is what it holds besides where it is the only one."""
    xp = p.xp
    own = pieces.split.first if position == 0 else pieces.split.last
    slots = {kind: slots * (own / pieces.split.fullest) for kind, slots in pieces.slots.items()}
    sets: list[tuple[Weights, Number]] = [
        (group, slots[kind]) for kind in pieces.layers for group in layer_weights(p, kind, layouts)
    ]
    sets += [(weights, 1.0) for weights in vocabulary]
    sets.append((also[0], also[1] * 1.0))
    held = _held(layouts, pieces.num_microbatches, position)
    saved = held * sum(slots[k] * layer.saved_bytes for k, layer in pieces.layers.items()) * p.stack.saved_frac
    working: Number = 0.0
    gathered: Number = 0.0
    for kind, layer in pieces.layers.items():
        working = xp.maximum(working, layer.working_bytes)
        gathered = xp.maximum(gathered, gathered_bytes(p, layer_weights(p, kind, layouts), layouts))
    logits = xp.where(at_head, pieces.head.working_bytes, 0.0)
    head_gathered = xp.where(at_head, head_weights_bytes(p, vocabulary_weights(p, layouts)[1], layouts), 0.0)
    head_first = logits + head_gathered > working + gathered
    return _Stage(
        state=state_bytes(p, tuple(sets), layouts),
        activations=saved,
        working=xp.where(head_first, 0.0, working),
        logits=xp.where(head_first, logits, 0.0),
        gathered=xp.where(head_first, head_gathered, gathered),
    )


def _held(layouts: LayoutBatch, num_microbatches: Number, position: int) -> Number:
    """Microbatches of the whole stage whose saved activations are alive at once on the first or the last stage."""
    v, stages = layouts.virtual_stages, layouts.pipeline
    stage = 0 * stages if position == 0 else stages - 1
    held: Number = 0.0
    for code, name in enumerate(SCHEDULES):
        chunks = in_flight(name, stages=stages, microbatches=num_microbatches, stage=stage, chunks=v)
        held = held + np.where(layouts.schedule == code, chunks / v, 0.0)
    layered = layouts.schedule == SCHEDULES.index("layered")
    return np.where((stages > 1) | layered, held, 1.0)
