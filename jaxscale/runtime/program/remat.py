"""Remat policies by op name: what of a layer's forward pass is kept for its backward pass, and where."""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_policies

from jaxscale.types import RematPolicy, remat_policy

LAYER_INPUT = "layer_input"  # the runtime's name for what enters a layer

WEIGHT = "weight"  # gathered weights: no policy keeps them, every backward pass gathers them again

Layer = Callable[..., Any]


def policy_function(policy: RematPolicy, *, inputs: bool = False) -> Callable[..., Any]:
    """The `jax.checkpoint` policy that a `RematPolicy` names; `inputs`: layers' inputs are kept by it too."""
    offloaded = sorted(policy.offloaded) + ([LAYER_INPUT] if policy.offload_layer_input else [])
    saved = sorted(policy.saved) + ([LAYER_INPUT] if inputs and not policy.offload_layer_input else [])
    if not offloaded:
        return checkpoint_policies.save_only_these_names(*saved)
    return checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=saved,
        names_which_can_be_offloaded=offloaded,
        offload_src="device",
        offload_dst="pinned_host",
    )


def remat_layer(layer: Layer, remat: str, *, in_loop: bool) -> Layer:
    """Wrap a layer so that its backward pass keeps what the policy says.

    `in_loop`: a scan separates forward from backward, so the compiler cannot undo the recomputation.
    """
    return jax.checkpoint(layer, policy=policy_function(remat_policy(remat)), prevent_cse=not in_loop)


def remat_layers(layers: Callable[[], Any], remat: str) -> Any:
    """The result of layers that a pipeline stage may skip in a tick, each layer being wrapped by `remat_layer` already.

    A branch of a `lax.cond` returns whatever its backward pass reads, weights too, and the scan over ticks would keep
    all that for every tick. Under a checkpoint around the condition the backward pass takes the weights from where they
    lie; layers' inputs and what their policy saves are kept as ever, so that nothing is computed once more.
    """
    return jax.checkpoint(layers, policy=policy_function(remat_policy(remat), inputs=True), prevent_cse=False)()


def remat_whole(work: Callable[[], Any]) -> Any:
    """The result of work that a stage may skip, of which nothing is kept but what it reads; else as `remat_layers`."""
    return jax.checkpoint(work, prevent_cse=False)()
