"""The one table of sharding rules: what each mesh axis splits.

| mesh axis | splits | gradients of replicas summed over it |
|---|---|---|
| data | batch; at `*_shard=data` also parameters, gradients or optimizer state | yes |
| fsdp | batch; at `*_shard=fsdp` parameters, gradients or optimizer state | yes |
| expert | batch outside the experts, the experts inside them | yes, except of experts |
| context | sequence | yes |
| tensor | heads, d_ff, vocabulary; with `sequence_parallel` the residual stream's sequence | where partial |
| pipeline | layers | of embedding and head |

The rest of the runtime reads the constants below and names no axis for itself, except where an axis has a method of
its own (ring attention, all-to-all, pipeline sends).
"""

import math
from dataclasses import dataclass
from typing import Literal

from jaxscale.types import Layout
from jaxscale.zoo import EXPERT_DIM, LAYERS_DIM, TENSOR_DIMS

Axes = tuple[str, ...]

# Parameter dim -> the mesh axis that splits it by the way the model is computed. Every other dim is whole, or split
# over a ZeRO group for storage only.
DIM_AXIS: dict[str, str] = {
    **dict.fromkeys(TENSOR_DIMS, "tensor"),
    EXPERT_DIM: "expert",
    LAYERS_DIM: "pipeline",
}

BATCH_AXES: Axes = ("data", "fsdp", "expert")  # split the sequences of a batch
TOKEN_AXES: Axes = (*BATCH_AXES, "context")  # split the tokens of a batch: gradients are sums over them
TENSOR_AXES: Axes = ("tensor",)
EXPERT_AXES: Axes = ("expert",)
CONTEXT_AXES: Axes = ("context",)
PIPELINE_AXES: Axes = ("pipeline",)

# Where parameters are stored in parts: `*_shard=fsdp` splits over the ZeRO group, `*_shard=data` over data as well.
# dense: of a layer, outside the experts. expert: the expert axis splits them already. ends: embedding, final norm and
# head, which every pipeline stage would hold otherwise.
ParamClass = Literal["dense", "expert", "ends"]
ZERO_GROUP: dict[ParamClass, Axes] = {
    "dense": ("fsdp", "expert", "context"),
    "expert": ("fsdp", "context"),
    "ends": ("fsdp", "expert", "context", "pipeline"),
}
ZERO_DATA_AXES: Axes = ("data",)

# Mesh axes whose devices hold different parts of the gradient's sum, before any tensor-parallel ones.
GRADIENT_AXES: dict[ParamClass, Axes] = {
    "dense": TOKEN_AXES,
    "expert": ("data", "fsdp", "context"),
    "ends": (*TOKEN_AXES, "pipeline"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisRules:
    """The table applied to one layout: axes of degree 1 drop out, so that they emit no collective."""

    layout: Layout

    def live(self, axes: Axes) -> Axes:
        """The axes of `axes` that split anything."""
        return tuple(axis for axis in axes if getattr(self.layout, axis) > 1)

    def size(self, axes: Axes) -> int:
        """Devices that differ only in their place on `axes`."""
        return math.prod(getattr(self.layout, axis) for axis in axes)
