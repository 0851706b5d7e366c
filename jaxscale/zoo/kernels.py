"""The kernel registry: which program runs attention and the experts' grouped matmul on which platform."""

from dataclasses import dataclass

import jax

from jaxscale.errors import SpecError, nearest
from jaxscale.zoo.attention import AttentionKernel, plain_attention

Array = jax.Array

ATTENTION_KERNELS: dict[str, AttentionKernel] = {"xla": plain_attention}


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a model runs, as opposed to what it is: kernels and the mixture of experts' dispatch.

    `capacity_factor` is the size of an expert's buffer over its mean load; tokens beyond it are dropped. 0 = dropless.
    """

    attention: str = "xla"
    grouped_matmul: str = "ragged_dot"
    capacity_factor: float = 0.0


def attention_kernel(name: str) -> AttentionKernel:
    """Look an attention kernel up by name."""
    if name not in ATTENTION_KERNELS:
        known = ", ".join(ATTENTION_KERNELS)
        raise SpecError(f"attention={name!r} is not one of {known}.{nearest(name, ATTENTION_KERNELS, count=1)}")
    return ATTENTION_KERNELS[name]
