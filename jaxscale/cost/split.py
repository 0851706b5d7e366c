"""How many layers each pipeline stage gets.

Most frameworks give every stage as many layers, so that the stages with the embedding and the head do more work. Some
count the modules around the layers too, as DeepSpeed's uniform partition and torchtitan do, and give the ends fewer
layers: of L layers with b modules before them and a behind, each of p stages gets (L + a + b) / p modules, the first
ones the rest.
"""

from dataclasses import dataclass

import numpy as np

from jaxscale.cost.numbers import Number
from jaxscale.cost.problem import Problem
from jaxscale.types import LayoutBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLayers:
    """Layers of the first, the fullest and the last stage, all its chunks; arrays [n]."""

    first: Number
    fullest: Number
    last: Number


def stage_layers(p: Problem, layouts: LayoutBatch) -> StageLayers:
    """Split the layers over the stages as the stack does, padding of uneven stages included."""
    layers, chunks = p.inventory.numbers.num_layers, layouts.virtual_stages
    parts = layouts.pipeline * chunks
    before, after = p.stack.modules_before, p.stack.modules_after
    if not np.any(before + after):
        equal = np.ceil(layers / parts) * chunks
        return StageLayers(first=equal, fullest=equal, last=equal)
    modules = layers + before + after
    most, least = np.ceil(modules / parts), np.floor(modules / parts)
    first, last = chunks * most - before, (chunks - 1) * most + least - after
    middle = np.where(layouts.pipeline > 2, chunks * most, 0.0)
    fullest = np.maximum(middle, np.maximum(first, last))
    alone = layouts.pipeline == 1
    return StageLayers(
        first=np.where(alone, layers, first),
        fullest=np.where(alone, layers, fullest),
        last=np.where(alone, layers, np.maximum(last, 0.0)),
    )
