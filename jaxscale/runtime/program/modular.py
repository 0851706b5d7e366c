"""The modular pipeline: layered gradient accumulation where every stage holds several chunks of layers, dealt in turn.

Lamy-Poirier 2021 (arXiv 2106.02679), section 4. All microbatches pass a chunk before the next chunk starts, so that a
chunk's weights are gathered once a pass and its gradients reduced once a step, and the bubble is that of one chunk,
not of a whole stage: (p - 1) / (v M). With one layer to a chunk it is the paper's.

Notation: p stages, s this stage (from 0), v chunks a stage, M microbatches, n = max(M, p) units to a round: with fewer
microbatches than stages the last units of a round are idle, for what the last stage sends is not there before.

* Forward, v n + p - 2 ticks: at tick t stage s runs unit u = t - s, microbatch u mod n of chunk u // n. What enters a
  chunk waits in a table by chunk and microbatch, from the moment it arrives to its backward pass; what the last stage
  sends round the ring enters the first stage's next chunk. The last stage leaves its last chunk to the other pass.
* Backward, v n + p - 1 ticks: the units in reverse, stage s being p - 1 - s ticks behind the last one. Each recomputes
  its chunk from the input that waited, as in 1f1b.

Both go in rounds of n ticks. Stages are at most p - 1 <= n ticks apart, so in a round they work on two chunks: those
behind finish the one of the round before. Its weights (and in the backward pass the sums of its gradients) are held
until then, so that every stage gathers and reduces at the same moment, between two rounds, outside of any branch.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxscale.runtime.comms.collectives import rotate
from jaxscale.runtime.placement.rules import PIPELINE_AXES
from jaxscale.runtime.program.batch import Batch, take_microbatch
from jaxscale.runtime.program.branch import run_where
from jaxscale.runtime.program.model import Flow, build_context, embed_tokens, run_chunk, token_loss
from jaxscale.runtime.program.program import ENDS, Program
from jaxscale.runtime.program.weights import (
    gather_whole,
    make_sinks,
    make_slots,
    put_chunk,
    read_whole,
    reduce_whole,
    select_chunk,
    stage_index,
)

Array = jax.Array
Params = Any
_AXIS = PIPELINE_AXES[0]


def modular_gradients(program: Program, stored: Params, batches: Batch, weight: Array) -> tuple[Params, Array, Array]:
    """Gradients in slots, and this device's share of the mean loss and of the auxiliary loss."""
    plans = {name: program.plans[name] for name in ENDS}
    ends = gather_whole(program, {name: stored[name] for name in ENDS}, plans)
    stage = _Stage(program=program, stored=stored, ends=ends, batches=batches, weight=weight)
    done = _backward(stage, *_forward(stage))
    grads = reduce_whole(program, done.d_ends, plans) | {"segments": done.grads}
    return grads, done.loss / weight, done.aux / weight


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """One microbatch through one of this stage's chunks."""

    valid: Array
    chunk: Array
    microbatch: Array
    row: Array  # of the table of inputs; past its end where the unit is not valid


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Everything that the ticks of one stage share."""

    program: Program
    stored: Params
    ends: Params  # weights of embedding and head, gathered
    batches: Batch
    weight: Array

    @property
    def num_chunks(self) -> int:
        return self.program.stages.chunks_per_stage

    @property
    def round_units(self) -> int:
        return max(self.program.num_microbatches, self.program.layout.pipeline)

    @property
    def is_last(self) -> Array:
        return stage_index(self.program) == self.program.layout.pipeline - 1

    def unit(self, number: Array) -> _Unit:
        """The unit of a number, counted over the chunks of a stage."""
        count = self.program.num_microbatches
        chunk, microbatch = number // self.round_units, number % self.round_units
        valid = (number >= 0) & (chunk < self.num_chunks) & (microbatch < count)
        row = jnp.where(valid, chunk * count + microbatch, self.num_chunks * count)
        return _Unit(valid=valid, chunk=chunk, microbatch=microbatch, row=row)

    def enters(self, unit: _Unit) -> Array:
        """Whether a unit starts with the embedding."""
        return (stage_index(self.program) == 0) & (unit.chunk == 0)

    def leaves(self, unit: _Unit) -> Array:
        """Whether a unit ends with the head."""
        return self.is_last & (unit.chunk == self.num_chunks - 1)

    def gather(self, chunk: Array | int) -> Params:
        """The weights of one of this stage's chunks."""
        rows = select_chunk(self.program, self.stored["segments"], chunk)
        return gather_whole(self.program, rows, self.program.plans["segments"])

    def entering(self, unit: _Unit, inputs: Array) -> Array:
        """The stream that enters a unit: embedded here, or from the table of inputs."""
        microbatch = take_microbatch(self.batches, unit.microbatch)
        embedded = lambda: embed_tokens(self.program, self.ends["embedding"], microbatch)  # noqa: E731
        return lax.cond(self.enters(unit), embedded, lambda: inputs.at[unit.row].get(mode="clip"))

    def run(self, weights: Params, sinks: Params, stream: Array, unit: _Unit) -> Flow:
        """One unit's layers."""
        context = build_context(self.program, take_microbatch(self.batches, unit.microbatch))
        return run_chunk(self.program, weights, sinks, stream, context, unit.chunk, read_whole)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """The same of two chunks: the one of the round before, and the one of this round."""

    before: Any
    now: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """Forward or backward: what happens in a tick, and between rounds."""

    behind: Array  # ticks by which this stage starts after the first one to start
    drain: int  # ticks after the last round
    chunk: Callable[[Array | int], Array | int]  # of a round
    tick: Callable[[Any, Array, Array, _Pair], Any]  # (carry, tick, whether in this round's chunk, weights) -> carry
    begin: Callable[[Any], Any] = lambda carry: carry  # of a round but the first
    close: Callable[[Any, Array | int], Any] = lambda carry, chunk: carry  # every stage has left the chunk


def _in_rounds(stage: _Stage, of: _Pass, carry: Any, first: Params) -> tuple[Any, Params]:
    """All rounds of a pass, from the weights of its first chunk; also those of its last chunk.

    A chunk's weights are gathered before its round, and held for the one after.
    """

    def run(carry: Any, number: Array | int, weights: _Pair, ticks: int) -> Any:
        def step(carry: Any, j: Array) -> tuple[Any, None]:
            return of.tick(carry, number * stage.round_units + j, j >= of.behind, weights), None

        return lax.scan(step, carry, jnp.arange(ticks))[0]

    def following(state: tuple[Any, Params], number: Array) -> tuple[tuple[Any, Params], None]:
        weights = _Pair(before=state[1], now=stage.gather(of.chunk(number)))
        carry = run(of.begin(state[0]), number, weights, stage.round_units)
        return (of.close(carry, of.chunk(number - 1)), weights.now), None

    carry = run(carry, 0, _Pair(before=first, now=first), stage.round_units)
    (carry, last), _ = lax.scan(following, (carry, first), jnp.arange(1, stage.num_chunks))
    carry = run(of.begin(carry), stage.num_chunks, _Pair(before=last, now=last), of.drain)
    return of.close(carry, of.chunk(stage.num_chunks - 1)), last


def _on_chunk(program: Program, in_now: Array, weights: _Pair, sums: _Pair, work: Callable[[Any, Any], Any]) -> Any:
    """`work(weights, sums) -> (sums, result)` with those of the chunk that this stage is in."""

    def on_now() -> tuple[_Pair, Any]:
        now, result = work(weights.now, sums.now)
        return _Pair(before=sums.before, now=now), result

    def on_before() -> tuple[_Pair, Any]:
        before, result = work(weights.before, sums.before)
        return _Pair(before=before, now=sums.now), result

    if not program.comms.uses_ring:
        return lax.cond(in_now, on_now, on_before)
    pick = lambda pair: jax.tree.map(lambda a, b: jnp.where(in_now, a, b), pair.now, pair.before)  # noqa: E731
    own, result = work(pick(weights), pick(sums))
    keep = lambda here, new, old: jax.tree.map(lambda a, b: jnp.where(here, a, b), new, old)  # noqa: E731
    return _Pair(before=keep(~in_now, own, sums.before), now=keep(in_now, own, sums.now)), result


def _forward(stage: _Stage) -> tuple[Array, Params]:
    """The inputs of all chunks of this stage by chunk and microbatch, [v M, b, t, D]; weights of its last chunk."""
    program, s, stages = stage.program, stage_index(stage.program), stage.program.layout.pipeline
    nothing = _Pair(before=None, now=None)

    def tick(inputs: Array, number: Array, in_now: Array, weights: _Pair) -> Array:
        unit = stage.unit(number - s)
        stream = stage.entering(unit, inputs)

        def layers(own: Params, _: None) -> tuple[None, Array]:
            return None, stage.run(own, make_sinks(program, own), stream, unit).stream

        sent = run_where(
            program,
            unit.valid & ~stage.leaves(unit),
            lambda: _on_chunk(program, in_now, weights, nothing, layers)[1],
            lambda: stream,
        )
        # What arrives is this stage's next unit; on the first stage, the same microbatch of the next chunk.
        arriving = jnp.where(s == 0, number - (stages - 1) + stage.round_units, number - (s - 1))
        first = jnp.where(s == 0, stage.round_units, 0)
        row = jnp.where(arriving >= first, stage.unit(arriving).row, len(inputs))
        return inputs.at[row].set(rotate(sent, _AXIS), mode="drop")

    inputs = jnp.zeros((stage.num_chunks * program.num_microbatches, *program.stream_shape), program.compute_dtype)
    forward = _Pass(behind=s, drain=stages - 2, chunk=lambda number: number, tick=tick)
    return _in_rounds(stage, forward, inputs, stage.gather(0))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class _Carry:
    """What the backward pass hands from tick to tick."""

    arrived: Array  # gradients of the streams that left this stage, by microbatch, [M, b, t, D]
    sums: _Pair  # gradients of the chunks at work, in sinks
    grads: Params  # of the chunks that are done, in slots
    d_ends: Params  # of embedding and head, in sinks
    loss: Array
    aux: Array


def _backward(stage: _Stage, inputs: Array, last_weights: Params) -> _Carry:
    """Gradients and losses of this stage; those of embedding and head are not reduced yet.

    It starts with the chunk that the forward pass ended with, whose weights are there.
    """
    # Without a barrier XLA would merge the gathers of both passes and hold whole weights from one to the other.
    stored, inputs = lax.optimization_barrier((stage.stored, inputs))
    stage = dataclasses.replace(stage, stored=stored)
    program, s, stages = stage.program, stage_index(stage.program), stage.program.layout.pipeline
    behind, last = stages - 1 - s, stage.num_chunks * stage.round_units - 1

    def tick(carry: _Carry, number: Array, in_now: Array, weights: _Pair) -> _Carry:
        unit = stage.unit(last - number + behind)
        carry, d_stream = run_where(
            program,
            unit.valid,
            lambda: _pull_unit(stage, carry, unit, inputs, in_now, weights),
            lambda: (carry, jnp.zeros_like(inputs[0])),
        )
        # What arrives belongs to this stage's next unit; on the last stage, to the same microbatch of the chunk before.
        arriving = stage.unit(last - number + jnp.where(stage.is_last, stages - 1, behind - 1))
        row = jnp.where(arriving.valid, arriving.microbatch, len(carry.arrived))
        arrived = carry.arrived.at[row].set(rotate(d_stream, _AXIS, steps=-1), mode="drop")
        return dataclasses.replace(carry, arrived=arrived)

    def begin(carry: _Carry) -> _Carry:
        blank = jax.tree.map(jnp.zeros_like, carry.sums.now)
        return dataclasses.replace(carry, sums=_Pair(before=carry.sums.now, now=blank))

    def close(carry: _Carry, chunk: Array | int) -> _Carry:
        done = reduce_whole(program, carry.sums.before, program.plans["segments"])
        return dataclasses.replace(carry, grads=put_chunk(program, carry.grads, done, chunk))

    def chunk(number: Array | int) -> Array | int:
        return stage.num_chunks - 1 - number

    whole = _Pass(behind=behind, drain=stages - 1, chunk=chunk, tick=tick, begin=begin, close=close)
    return _in_rounds(stage, whole, _nothing_yet(stage), last_weights)[0]


def _nothing_yet(stage: _Stage) -> _Carry:
    program = stage.program
    sums = make_sinks(program, jax.eval_shape(lambda: stage.gather(0)))
    return _Carry(
        arrived=jnp.zeros((program.num_microbatches, *program.stream_shape), program.compute_dtype),
        sums=_Pair(before=sums, now=sums),
        grads=make_slots(program, program.plans["segments"]),
        d_ends=make_sinks(program, stage.ends),
        loss=jnp.zeros(()),
        aux=jnp.zeros(()),
    )


def _pull_unit(
    stage: _Stage, carry: _Carry, unit: _Unit, inputs: Array, in_now: Array, weights: _Pair
) -> tuple[_Carry, Array]:
    """One unit's backward pass: its gradients added to their sums, and the gradient of the stream that entered."""
    program = stage.program
    stream = stage.entering(unit, inputs)

    def layers(own: Params, sums: Params) -> tuple[Params, Any]:
        flow, pull = jax.vjp(lambda *x: stage.run(own, *x, unit), make_sinks(program, own), stream)
        after_head, d_sent = _pull_head(stage, carry, unit, flow.stream)
        d_own, d_stream = pull(Flow(stream=d_sent, aux=1 / stage.weight))
        return jax.tree.map(jnp.add, sums, d_own), (after_head, d_stream, flow.aux)

    sums, ((d_ends, loss), d_stream, aux) = _on_chunk(program, in_now, weights, carry.sums, layers)
    d_ends, d_stream = _pull_embedding(stage, d_ends, unit, d_stream)
    return dataclasses.replace(carry, sums=sums, d_ends=d_ends, loss=loss, aux=carry.aux + aux), d_stream


def _pull_head(stage: _Stage, carry: _Carry, unit: _Unit, stream: Array) -> tuple[tuple[Params, Array], Array]:
    """Where a unit ends with the head: its gradients and loss added; and the gradient of what the unit sends on."""
    program, microbatch = stage.program, take_microbatch(stage.batches, unit.microbatch)
    own = {name: stage.ends[name] for name in program.head_parts}

    def loss_of(sinks: Params, stream: Array) -> Array:
        ends = read_whole(program, own, sinks)
        return token_loss(program, ends["head"], ends.get("embedding"), stream, microbatch)

    def head() -> tuple[tuple[Params, Array], Array]:
        loss, pull = jax.vjp(loss_of, make_sinks(program, own), stream)
        d_own, d_stream = pull(1 / stage.weight)
        sums = jax.tree.map(jnp.add, {name: carry.d_ends[name] for name in own}, d_own)
        return (carry.d_ends | sums, carry.loss + loss), d_stream

    def none() -> tuple[tuple[Params, Array], Array]:
        return (carry.d_ends, carry.loss), carry.arrived[unit.microbatch]

    return lax.cond(stage.leaves(unit), head, none)


def _pull_embedding(stage: _Stage, d_ends: Params, unit: _Unit, d_stream: Array) -> tuple[Params, Array]:
    """Where a unit starts with the embedding: its gradients added, and nothing left to send on."""
    program, microbatch = stage.program, take_microbatch(stage.batches, unit.microbatch)

    def stream_of(sinks: Params) -> Array:
        return embed_tokens(program, read_whole(program, stage.ends["embedding"], sinks), microbatch)

    def embedding() -> tuple[Params, Array]:
        _, pull = jax.vjp(stream_of, make_sinks(program, stage.ends["embedding"]))
        total = jax.tree.map(jnp.add, d_ends["embedding"], pull(d_stream)[0])
        return d_ends | {"embedding": total}, jnp.zeros_like(d_stream)

    return lax.cond(stage.enters(unit), embedding, lambda: (d_ends, d_stream))
