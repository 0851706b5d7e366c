"""Work that only some pipeline stages do in a tick."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxscale.runtime.program.program import Program

Array = jax.Array


def run_where(program: Program, predicate: Array, work: Callable[[], Any], idle: Callable[[], Any]) -> Any:
    """`work()` where `predicate` holds, else `idle()`; the predicate may differ between pipeline stages.

    Most collectives have groups, and the devices of one group are of one stage, so they skip or meet together. A
    collective-permute has none: every device must reach it. With ring attention the work is therefore always done and
    its result chosen afterwards.
    """
    if not program.comms.uses_ring:
        return lax.cond(predicate, work, idle)
    return _choose(predicate, work(), idle())


def switch_where(program: Program, index: Array, branches: list[Callable[[], Any]]) -> Any:
    """`branches[index]()`, under the same condition as `run_where`."""
    if not program.comms.uses_ring or program.layout.pipeline == 1:
        return lax.switch(index, branches)
    result = branches[0]()
    for number, branch in enumerate(branches[1:], 1):
        result = _choose(index == number, branch(), result)
    return result


def _choose(predicate: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(predicate, x, y), a, b)
