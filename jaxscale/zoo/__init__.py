"""The model zoo: one decoder built from a `ModelShape`, as flax NNX modules behind pure functions.

Parameters are a plain tree of arrays, `{"embedding", "segments", "head"}`; `segments[i][j]` is the j-th layer kind of
segment i with every leaf stacked over the segment's repeats. What a runtime needs, in the order of a step:

| function | what |
|---|---|
| `parameter_info(shape)` / `abstract_params(shape)` | every parameter's shape, dim names and gradient rule; no memory |
| `init_params(shape, key)` | random float32 parameters, traceable |
| `segments(layer_kinds(shape))` | the scans of the model: (repeats, layer kinds) |
| `make_context(shape, positions, segment_ids)` | positions and rotary tables, once a microbatch |
| `embed(shape, params["embedding"], tokens, positions, comms=...)` | tokens to residual stream |
| `layer_body(shape, kind, comms=..., execution=...)` | one layer: (layer params, stream, context) -> (stream, stats) |
| `head_loss(shape, params["head"], params["embedding"], stream, targets, weights, comms=...)` | summed loss |
| `forward`, `logits` | the whole model on one device |
| `execution_for(shape, platform, seq_len=...)` | the kernels that suit a platform, as an `Execution` |
| `load_checkpoint(shape, folder)`, `save_checkpoint` | Hugging Face checkpoints to parameters and back |

A layer's `stats` is `RoutingStats` of a mixture-of-experts layer, else None.

Every effect of a mesh goes through a `Comms` object; `LocalComms` is one device. Modules infer local heads, widths and
experts from the parameters they are given. Activations carry `checkpoint_name`s, the op names of the op inventory.

Gradients under tensor parallelism: `ParamInfo.tensor_grad` says which local gradients are partial sums over the
tensor axis ("never", "sequence": with sequence parallelism only, "always") and must be summed by the runtime.
"""

from jaxscale.zoo.checkpoint import load_checkpoint, save_checkpoint
from jaxscale.zoo.comms import Comms, LocalComms
from jaxscale.zoo.decoder import (
    LayerKind,
    Segment,
    abstract_params,
    document_positions,
    embed,
    forward,
    head_logits,
    init_params,
    layer_body,
    layer_kinds,
    logits,
    make_context,
    padded_vocab,
    parameter_info,
    segments,
)
from jaxscale.zoo.kernels import (
    AttentionInputs,
    AttentionKernel,
    AttentionSpec,
    Execution,
    apply_sinks,
    block_backward,
    block_forward,
    execution_for,
    merge_blocks,
    row_delta,
)
from jaxscale.zoo.layers import Context
from jaxscale.zoo.loss import head_loss
from jaxscale.zoo.params import EXPERT_DIM, LAYERS_DIM, TENSOR_DIMS, ParamInfo
from jaxscale.zoo.routing import RoutingStats, balanced_bias

__all__ = [
    "EXPERT_DIM",
    "LAYERS_DIM",
    "TENSOR_DIMS",
    "AttentionInputs",
    "AttentionKernel",
    "AttentionSpec",
    "Comms",
    "Context",
    "Execution",
    "LayerKind",
    "LocalComms",
    "ParamInfo",
    "RoutingStats",
    "Segment",
    "abstract_params",
    "apply_sinks",
    "balanced_bias",
    "block_backward",
    "block_forward",
    "document_positions",
    "embed",
    "execution_for",
    "forward",
    "head_logits",
    "head_loss",
    "init_params",
    "layer_body",
    "layer_kinds",
    "load_checkpoint",
    "logits",
    "make_context",
    "merge_blocks",
    "padded_vocab",
    "parameter_info",
    "row_delta",
    "save_checkpoint",
    "segments",
]
