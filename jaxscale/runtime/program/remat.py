"""Remat policies by op name: what of a layer's forward pass is kept for its backward pass, and where."""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_policies

from jaxscale.types import RematPolicy, remat_policy

LAYER_INPUT = "layer_input"  # the name the runtime gives to a layer's input where that goes to the host

WEIGHT = "weight"  # gathered weights: no policy keeps them, every backward pass gathers them again

Layer = Callable[..., Any]


def policy_function(policy: RematPolicy) -> Callable[..., Any]:
    """The `jax.checkpoint` policy that a `RematPolicy` names."""
    offloaded = sorted(policy.offloaded) + ([LAYER_INPUT] if policy.offload_layer_input else [])
    if not offloaded:
        return checkpoint_policies.save_only_these_names(*sorted(policy.saved))
    return checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=sorted(policy.saved),
        names_which_can_be_offloaded=offloaded,
        offload_src="device",
        offload_dst="pinned_host",
    )


def remat_layer(layer: Layer, remat: str, *, in_loop: bool) -> Layer:
    """Wrap a layer so that its backward pass keeps what the policy says.

    `in_loop`: a scan separates forward from backward, so the compiler cannot undo the recomputation.
    """
    return jax.checkpoint(layer, policy=policy_function(remat_policy(remat)), prevent_cse=not in_loop)
