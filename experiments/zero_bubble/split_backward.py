"""Would zero bubble (ZB-H1, Qi et al. 2024, arXiv 2401.10241) pay in one XLA program? README.md has the answer.

ZB-H1 splits a stage's backward pass in input gradient and weight gradient, and puts weight gradients where a stage
would wait. In one XLA program all stages tick together, so the split helps only where no stage has a weight gradient in
a tick that some stage would otherwise spend on one. Three tables: what a stage's passes cost as XLA compiles them, what
lockstep ticks could save, and what must be kept to split without computing anything twice.

    python experiments/zero_bubble/split_backward.py
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import dce_jaxpr
from rich.console import Console
from rich.table import Table

from jaxscale.aot.hlo import MeshAxes, read_program
from jaxscale.catalog import load_model
from jaxscale.schedule import IDLE, Action, Schedule, build, replay
from jaxscale.types import ModelShape
from jaxscale.zoo import LocalComms, abstract_params, execution_for, layer_body, layer_kinds, make_context

TOKENS = 2048
SHAPE = ModelShape(
    name="stage", num_layers=4, d_model=1024, num_heads=16, num_kv_heads=8, head_dim=64, d_ff=4096, vocab_size=256
)


def layer_function(shape: ModelShape, tokens: int) -> Any:
    """One layer of the zoo: (weights, stream [1, t, D]) -> stream."""
    execution = execution_for(shape, "cpu", seq_len=tokens)
    body = layer_body(shape, layer_kinds(shape)[-1], comms=LocalComms(), execution=execution)
    context = make_context(shape, jnp.arange(tokens)[None], None, seq_len=tokens)
    return lambda weights, stream: body(weights, stream, context)[0]


def abstract_layer(shape: ModelShape, tokens: int, rows: int) -> tuple[Any, jax.ShapeDtypeStruct]:
    """Weights of `rows` layers, stacked, and a stream, in bf16 and without memory."""
    stacked = abstract_params(shape)["segments"][-1][0]
    weights = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), jnp.bfloat16), stacked)
    return weights, jax.ShapeDtypeStruct((1, tokens, shape.d_model), jnp.bfloat16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """FLOPs of one microbatch through a stage."""

    forward: float
    fused: float  # recompute, input and weight gradients from one backward pass, as the 1f1b program runs it
    input_only: float  # recompute and input gradient
    weights_only: float  # recompute, the chain of input gradients, and weight gradients

    @property
    def weight(self) -> float:
        """What the weight gradients themselves take."""
        return self.fused - self.input_only

    @property
    def split_costs(self) -> float:
        """FLOPs that two passes compute twice."""
        return self.input_only + self.weights_only - self.fused


def compiled_passes(shape: ModelShape, tokens: int) -> Passes:
    """Compile a stage's passes and count what XLA left of them."""
    layer = layer_function(shape, tokens)
    weights, stream = abstract_layer(shape, tokens, shape.num_layers)

    def stage(weights: Any, stream: Any) -> Any:
        return jax.lax.scan(lambda x, row: (layer(row, x), None), stream, weights)[0]

    def pull(weights: Any, stream: Any, ct: Any) -> Any:
        return jax.vjp(stage, weights, stream)[1](ct)

    def flops(function: Any, *arguments: Any) -> float:
        text = jax.jit(function).lower(*arguments).compile().as_text()
        return read_program(text, MeshAxes(names=("data",), sizes=(1,))).flops

    return Passes(
        forward=flops(stage, weights, stream),
        fused=flops(pull, weights, stream, stream),
        input_only=flops(lambda *x: pull(*x)[1], weights, stream, stream),
        weights_only=flops(lambda *x: pull(*x)[0], weights, stream, stream),
    )


def lockstep_zero_bubble(stages: int, microbatches: int) -> Schedule:
    """ZB-H1 in ticks of a forward, an input gradient and a weight gradient; stage s puts the last off by s ticks."""
    ticks = microbatches + 2 * (stages - 1)

    def slot(kind: str, number: int) -> Action:
        return Action(kind, number if 0 <= number < microbatches else IDLE, 0)  # type: ignore[arg-type]

    rows = []
    for s in range(stages):
        row: list[Action] = []
        for t in range(ticks):
            up = t - (2 * (stages - 1) - s)
            row += [slot("F", t - s), slot("B", up), slot("W", up - s)]
        rows.append(tuple(row))
    return Schedule(
        family="zero_bubble", stages=stages, microbatches=microbatches, chunks=1, actions=tuple(rows), slots_per_tick=3
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Bytes of one layer and microbatch."""

    stream: float  # what 1f1b keeps: the input of the stage's first layer only
    activations: float  # residuals of the forward pass: no recompute
    pairs: float  # what the weight gradients read: inputs of matmuls and the gradients of their outputs


def kept_bytes(shape: ModelShape, tokens: int) -> Kept:
    """Split one layer's backward pass by what it computes, and measure what crosses the cut."""
    layer = layer_function(shape, tokens)
    stacked, stream = abstract_layer(shape, tokens, 1)
    weights = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), stacked)
    pull = jax.eval_shape(lambda w, x: jax.vjp(layer, w, x)[1], weights, stream)
    jaxpr = jax.make_jaxpr(lambda pull, ct: pull(ct))(pull, stream).jaxpr
    of_input = [False] * (len(jaxpr.outvars) - 1) + [True]
    for_input, _ = dce_jaxpr(jaxpr, of_input, instantiate=True)
    for_weights, _ = dce_jaxpr(jaxpr, [not used for used in of_input], instantiate=True)
    shared = {var for eqn in for_input.eqns for var in eqn.outvars}
    late = [eqn for eqn in for_weights.eqns if not shared & set(eqn.outvars)]
    made = {var for eqn in late for var in eqn.outvars}
    read = {var for eqn in late for var in eqn.invars if not hasattr(var, "val")} - made
    own = {(x.shape, x.dtype) for x in jax.tree.leaves(weights)}
    return Kept(
        stream=_bytes([stream]),
        activations=_bytes([v.aval for v in jaxpr.invars[:-1] if (v.aval.shape, v.aval.dtype) not in own]),
        pairs=_bytes([v.aval for v in read if (v.aval.shape, v.aval.dtype) not in own]),
    )


def _bytes(values: list[Any]) -> float:
    return float(sum(math.prod(x.shape) * x.dtype.itemsize for x in values))


def main() -> None:
    """Print the three tables."""
    console = Console(width=110)
    passes = compiled_passes(SHAPE, TOKENS)
    f = passes.forward
    table = Table("pass of a stage", "FLOPs / forward", title="As XLA compiles them")
    for name, value in (
        ("forward", f),
        ("backward, one pass (recompute, input and weight gradients)", passes.fused),
        ("input gradient alone", passes.input_only),
        ("weight gradients alone", passes.weights_only),
        ("computed twice by the split", passes.split_costs),
    ):
        table.add_row(name, f"{value / f:.2f}")
    console.print(table)
    table = Table(
        "stages", "microbatches", "1f1b", "split for nothing", "split as compiled", title="Step / (m forward)"
    )
    for p, m in ((2, 8), (4, 4), (4, 8), (4, 16), (4, 32), (8, 8), (8, 32), (8, 64)):
        one = replay(build("scan_1f1b", stages=p, microbatches=m), f, passes.fused).makespan_s
        best = replay(lockstep_zero_bubble(p, m), f, passes.input_only, weight_s=passes.weight).makespan_s
        real = replay(lockstep_zero_bubble(p, m), f, passes.input_only, weight_s=passes.weights_only).makespan_s
        table.add_row(
            str(p), str(m), f"{one / (m * f):.2f}", f"{best / (m * f):.2f} ({best / one - 1:+.1%})",
            f"{real / (m * f):.2f} ({real / one - 1:+.1%})",
        )  # fmt: skip
    console.print(table)
    table = Table("model", "stream", "activations", "pairs", title="MiB a layer and microbatch of 8,192 tokens, bf16")
    for name in ("llama3-8b", "llama3-70b"):
        kept = kept_bytes(load_model(name), 8192)
        table.add_row(name, *(f"{x / 2**20:,.0f}" for x in (kept.stream, kept.activations, kept.pairs)))
    console.print(table)


if __name__ == "__main__":
    main()
