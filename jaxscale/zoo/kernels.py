"""The kernel registry: which program runs attention and the experts' grouped matmul on which platform."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp

from jaxscale.errors import SpecError, nearest
from jaxscale.zoo.attention import AttentionKernel, plain_attention

Array = jax.Array
Entry = TypeVar("Entry")

GroupedMatmul = Callable[[Array, Array, Array], Array]  # rows [m, D], weights [E, D, F], sizes [E] -> [m, F]
Matmul = Callable[[str, Array, Array], Array]  # einsum equation, activations, weights


def ragged_dot(rows: Array, weights: Array, sizes: Array) -> Array:
    """XLA's own grouped matmul."""
    return jax.lax.ragged_dot(rows, weights, sizes)


def native_matmul(equation: str, x: Array, weight: Array) -> Array:
    """Matmul in the operands' own dtype."""
    return jnp.einsum(equation, x, weight)


ATTENTION_KERNELS: dict[str, AttentionKernel] = {"xla": plain_attention}
GROUPED_MATMULS: dict[str, GroupedMatmul] = {"ragged_dot": ragged_dot}
MATMULS: dict[str, Matmul] = {"native": native_matmul}


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a model runs, as opposed to what it is: kernels and the mixture of experts' dispatch.

    `capacity_factor` is the size of an expert's buffer over its mean load; tokens beyond it are dropped. 0 = dropless.
    """

    attention: str = "xla"
    grouped_matmul: str = "ragged_dot"
    matmul: str = "native"
    capacity_factor: float = 0.0


def _entry(field: str, name: str, table: Mapping[str, Entry]) -> Entry:
    if name not in table:
        raise SpecError(f"{field}={name!r} is not one of {', '.join(table)}.{nearest(name, table, count=1)}")
    return table[name]


def attention_kernel(name: str) -> AttentionKernel:
    """Look an attention kernel up by name."""
    return _entry("attention", name, ATTENTION_KERNELS)


def grouped_matmul(name: str) -> GroupedMatmul:
    """Look a grouped matmul up by name."""
    return _entry("grouped_matmul", name, GROUPED_MATMULS)


def matmul(execution: Execution) -> Matmul:
    """The matmul of dense weights."""
    return _entry("matmul", execution.matmul, MATMULS)
