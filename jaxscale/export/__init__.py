"""A layout in the words of other training frameworks, and back. Pure functions: values in, text out.

Every exporter is `(ModelShape, Workload, Cluster, Layout) -> Export`. What the target cannot be told is a sentence in
`Export.notes`; what would make the file meaningless raises LayoutError.
"""

import dataclasses
from collections.abc import Callable

from jaxscale.export.read_deepspeed import read_deepspeed
from jaxscale.export.read_maxtext import read_maxtext
from jaxscale.export.read_megatron import read_megatron
from jaxscale.export.result import Export, Imported
from jaxscale.export.write_accelerate import accelerate
from jaxscale.export.write_deepspeed import deepspeed
from jaxscale.export.write_easydel import easydel
from jaxscale.export.write_jax import plain_jax
from jaxscale.export.write_levanter import levanter
from jaxscale.export.write_maxtext import maxtext
from jaxscale.export.write_megatron import megatron
from jaxscale.export.write_torchtitan import torchtitan
from jaxscale.types import Cluster, Layout, ModelShape, Workload

Exporter = Callable[[ModelShape, Workload, Cluster, Layout], Export]


def _also_said(write: Exporter) -> Exporter:
    """Add what no target knows: a microbatch order of jaxscale's own."""

    def written(shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> Export:
        made = write(shape, workload, cluster, layout)
        if layout.schedule != "layered" or (write is torchtitan and layout.pipeline > 1):  # its LoopedBFS
            return made
        note = (
            "schedule=layered is jaxscale's own (all microbatches through a layer before the next); it is not exported."
        )
        return dataclasses.replace(made, notes=(note, *made.notes))

    return written


TARGETS: dict[str, Exporter] = {
    "maxtext": _also_said(maxtext),
    "torchtitan": _also_said(torchtitan),
    "megatron": _also_said(megatron),
    "deepspeed": _also_said(deepspeed),
    "accelerate": _also_said(accelerate),
    "levanter": _also_said(levanter),
    "easydel": _also_said(easydel),
    "jax": _also_said(plain_jax),
}

__all__ = ["TARGETS", "Export", "Imported", "read_deepspeed", "read_maxtext", "read_megatron"]
