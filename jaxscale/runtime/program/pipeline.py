"""Pipeline schedules: every stage runs the same program, one tick after the other, and sends to the next stage.

Notation: p stages, s this stage (from 0), v chunks a stage, M microbatches, m one of them.

* gpipe and interleaved are one scan over M v + p - 1 ticks, differentiated as a whole: backward runs the ticks in
  reverse. At tick t stage s runs unit u = t - s; units go through microbatches in groups of p, chunk after chunk
  (Narayanan et al., arXiv 2104.04473, section 2.2), so that what the last stage sends is what the first needs next.
* 1f1b is one scan over M + 2 (p - 1) ticks. At tick t stage s runs the forward pass of microbatch t - s and the
  backward pass of microbatch t - (2 (p - 1) - s), recomputing the stage from its input, which waited in a ring of
  2 p - 1 buffers. On the last stage the two are the same microbatch.
* layered is in `modular`.

Where a stage has nothing to do in a tick it skips the work, so filling and draining cost forward and backward ticks
respectively, not both. Devices of one stage skip together; only collectives among them are inside what is skipped.
Embedding and head may be stored in parts over the stages, so their weights are fetched outside of it, every tick.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxscale.runtime.comms.collectives import rotate, shift
from jaxscale.runtime.placement.rules import PIPELINE_AXES
from jaxscale.runtime.program.batch import Batch, take_microbatch
from jaxscale.runtime.program.branch import run_where
from jaxscale.runtime.program.model import Flow, build_context, embed_tokens, run_chunk, token_loss
from jaxscale.runtime.program.modular import modular_gradients
from jaxscale.runtime.program.program import ENDS, Program
from jaxscale.runtime.program.remat import remat_layers, remat_whole
from jaxscale.runtime.program.weights import fetch, make_slots, select_chunk, stage_index

Array = jax.Array
Params = Any
_AXIS = PIPELINE_AXES[0]


def pipeline_gradients(program: Program, stored: Params, batches: Batch, weight: Array) -> tuple[Params, Array, Array]:
    """Gradients in slots, and this device's share of the mean loss and of the auxiliary loss."""
    if program.layout.schedule == "layered":
        return modular_gradients(program, stored, batches, weight)
    if program.layout.schedule == "1f1b":
        return _one_forward_one_backward(program, stored, batches, weight)
    slots = make_slots(program, program.plans)
    grads, (loss, aux) = jax.grad(_scan_loss, has_aux=True)(slots, program, stored, batches, weight)
    return grads, loss, aux


def _blank(program: Program) -> Array:
    return jnp.zeros(program.stream_shape, program.compute_dtype)


def _fetch_ends(program: Program, stored: Params, slots: Params) -> dict[str, Params]:
    return {n: fetch(program, stored[n], slots[n], program.plans[n], stacked=False) for n in ENDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """What a stage does in one tick of gpipe or interleaved."""

    valid: Array
    microbatch: Array
    chunk: Array


def _unit(program: Program, tick: Array) -> _Unit:
    stages, chunks = program.layout.pipeline, program.layout.virtual_stages
    unit = tick - stage_index(program)
    valid = (unit >= 0) & (unit < program.num_microbatches * chunks)
    unit = jnp.clip(unit, 0, program.num_microbatches * chunks - 1)
    if chunks == 1:
        return _Unit(valid=valid, microbatch=unit, chunk=jnp.zeros((), jnp.int32))
    group, within = unit // (stages * chunks), unit % (stages * chunks)
    return _Unit(valid=valid, microbatch=group * stages + within % stages, chunk=within // stages)


def _scan_loss(
    slots: Params, program: Program, stored: Params, batches: Batch, weight: Array
) -> tuple[Array, tuple[Array, Array]]:
    """The mean loss of all microbatches through gpipe or interleaved ticks."""
    stages, chunks = program.layout.pipeline, program.layout.virtual_stages
    stage = stage_index(program)

    def tick(carry: tuple[Array, Array, Array], number: Array) -> tuple[Any, None]:
        stream, loss, aux = carry
        unit = _unit(program, number)
        microbatch = take_microbatch(batches, unit.microbatch)
        ends = _fetch_ends(program, stored, slots)
        enters = unit.valid & (stage == 0) & (unit.chunk == 0)
        entering = _embed_where(program, enters, ends, stream, microbatch)

        def layers() -> Flow:
            rows = [select_chunk(program, tree["segments"], unit.chunk) for tree in (stored, slots)]
            return run_chunk(program, *rows, entering, build_context(program, microbatch), unit.chunk)

        idle = Flow(stream=entering, aux=jnp.zeros(()))
        flow = remat_layers(lambda: run_where(program, unit.valid, layers, lambda: idle), program.layout.remat)
        leaves = unit.valid & (stage == stages - 1) & (unit.chunk == chunks - 1)
        loss += _loss_where(program, leaves, ends, flow.stream, microbatch)
        return (shift(flow.stream, _AXIS), loss, aux + flow.aux), None

    start = (_blank(program), jnp.zeros(()), jnp.zeros(()))
    ticks = jnp.arange(program.num_microbatches * chunks + stages - 1)
    (_, loss, aux), _ = lax.scan(tick, start, ticks)
    return (loss + aux) / weight, (loss / weight, aux / weight)


def _embed_where(program: Program, enters: Array, ends: dict[str, Params], stream: Array, microbatch: Batch) -> Array:
    """The embedded tokens of a microbatch that enters the first stage, else `stream`."""
    embedded = lambda: embed_tokens(program, ends["embedding"], microbatch)  # noqa: E731
    return remat_whole(lambda: lax.cond(enters, embedded, lambda: stream))


def _loss_where(program: Program, leaves: Array, ends: dict[str, Params], stream: Array, microbatch: Batch) -> Array:
    """Token loss of a microbatch that leaves the last stage, else 0."""
    loss = lambda: token_loss(program, ends["head"], ends["embedding"], stream, microbatch)  # noqa: E731
    return remat_whole(lambda: lax.cond(leaves, loss, lambda: jnp.zeros(())))


def _stage_losses(
    wrt: tuple[Params, Params, Array], program: Program, stored: Params, microbatch: Batch
) -> tuple[Array, Array, Array]:
    """One stage of one microbatch: (stream to send on, token loss of the last stage, auxiliary loss of this one).

    Differentiated by `wrt`: the slots of its layers, the fetched weights of embedding and head, the stream that enters.
    """
    slots, ends, stream = wrt
    stage = stage_index(program)
    stream = lax.cond(stage == 0, lambda: embed_tokens(program, ends["embedding"], microbatch), lambda: stream)
    flow = run_chunk(program, stored["segments"], slots, stream, build_context(program, microbatch), 0)
    loss = lax.cond(
        stage == program.layout.pipeline - 1,
        lambda: token_loss(program, ends["head"], ends["embedding"], flow.stream, microbatch),
        lambda: jnp.zeros(()),
    )
    return flow.stream, loss, flow.aux


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True, kw_only=True)
class _Carry:
    """What 1f1b hands from tick to tick."""

    forward: Array  # stream from the stage before
    backward: Array  # its gradient from the stage after
    inputs: Array  # streams that entered this stage and wait for their backward pass, [2p - 1, b, t, D]
    grads: Params
    loss: Array
    aux: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """One stage of 1f1b: everything that its ticks share."""

    program: Program
    stored: Params
    slots: Params
    ends: Params  # weights of embedding and head, gathered
    batches: Batch
    weight: Array

    @property
    def is_first(self) -> Array:
        return stage_index(self.program) == 0

    @property
    def is_last(self) -> Array:
        return stage_index(self.program) == self.program.layout.pipeline - 1

    @property
    def depth(self) -> int:
        """Streams in flight on the first stage, which has most."""
        return 2 * self.program.layout.pipeline - 1

    def exists(self, microbatch: Array) -> Array:
        return (microbatch >= 0) & (microbatch < self.program.num_microbatches)

    def forward(self, carry: _Carry, ends: Params, tick: Array) -> tuple[Array, Array]:
        """This tick's forward pass: the stream to send on, and the ring of inputs with the new one in it."""
        index = tick - stage_index(self.program)

        def work() -> tuple[Array, Array]:
            microbatch = take_microbatch(self.batches, index)
            # The last stage's forward pass is part of its backward pass in the same tick.
            sent = run_where(
                self.program,
                self.is_last,
                lambda: carry.forward,
                lambda: self._send(carry.forward, ends, microbatch),
            )
            return sent, carry.inputs.at[index % self.depth].set(carry.forward)

        return run_where(self.program, self.exists(index), work, lambda: (carry.forward, carry.inputs))

    def _send(self, stream: Array, ends: Params, microbatch: Batch) -> Array:
        program = self.program
        stream = lax.cond(self.is_first, lambda: embed_tokens(program, ends["embedding"], microbatch), lambda: stream)
        layers = self.stored["segments"], self.slots["segments"]
        return run_chunk(program, *layers, stream, build_context(program, microbatch), 0).stream

    def backward(self, carry: _Carry, ends: Params, inputs: Array, tick: Array) -> Any:
        """This tick's backward pass: gradients of layers, ends and entering stream; token and auxiliary loss."""
        index = tick - (2 * (self.program.layout.pipeline - 1) - stage_index(self.program))
        wrt = (self.slots["segments"], ends, inputs[index % self.depth])

        def work() -> Any:
            microbatch = take_microbatch(self.batches, index)
            (_, loss, aux), pull = jax.vjp(lambda *x: _stage_losses(x, self.program, self.stored, microbatch), *wrt)
            d_sent = jnp.where(self.is_last, 0, carry.backward)
            return *pull((d_sent, 1 / self.weight, 1 / self.weight)), loss, aux

        def idle() -> Any:
            return *jax.tree.map(jnp.zeros_like, wrt), jnp.zeros(()), jnp.zeros(())

        return run_where(self.program, self.exists(index), work, idle)

    def tick(self, carry: _Carry, number: Array) -> tuple[_Carry, None]:
        """One forward and one backward pass, and the sends between stages."""
        end_slots = {name: self.slots[name] for name in ENDS}
        # The gathered ends are those from before the scan; of this fetch only the way back is used.
        _, pull_ends = jax.vjp(lambda slots: _fetch_ends(self.program, self.stored, slots), end_slots)
        sent, inputs = self.forward(carry, self.ends, number)
        d_layers, d_ends, d_stream, loss, aux = self.backward(carry, self.ends, inputs, number)
        grads = {"segments": d_layers, **pull_ends(d_ends)[0]}
        return _Carry(
            forward=rotate(sent, _AXIS),
            backward=rotate(d_stream, _AXIS, steps=-1),
            inputs=inputs,
            grads=jax.tree.map(jnp.add, carry.grads, grads),
            loss=carry.loss + loss,
            aux=carry.aux + aux,
        ), None


def _one_forward_one_backward(
    program: Program, stored: Params, batches: Batch, weight: Array
) -> tuple[Params, Array, Array]:
    slots = make_slots(program, program.plans)
    ends = _fetch_ends(program, stored, slots)
    stage = _Stage(program=program, stored=stored, slots=slots, ends=ends, batches=batches, weight=weight)
    blank = _blank(program)
    start = _Carry(
        forward=blank,
        backward=blank,
        inputs=jnp.zeros((stage.depth, *blank.shape), blank.dtype),
        grads=slots,
        loss=jnp.zeros(()),
        aux=jnp.zeros(()),
    )
    ticks = jnp.arange(program.num_microbatches + 2 * (program.layout.pipeline - 1))
    final, _ = lax.scan(stage.tick, start, ticks)
    return final.grads, final.loss / weight, final.aux / weight
