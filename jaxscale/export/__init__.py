"""A layout in the words of other training frameworks, and back. Pure functions: values in, text out.

Every exporter is `(ModelShape, Workload, Cluster, Layout) -> Export`. What the target cannot be told is a sentence in
`Export.notes`; what would make the file meaningless raises LayoutError.
"""

from collections.abc import Callable

from jaxscale.export.read_deepspeed import read_deepspeed
from jaxscale.export.read_maxtext import read_maxtext
from jaxscale.export.read_megatron import read_megatron
from jaxscale.export.result import Export, Imported
from jaxscale.export.write_accelerate import accelerate
from jaxscale.export.write_deepspeed import deepspeed
from jaxscale.export.write_jax import plain_jax
from jaxscale.export.write_maxtext import maxtext
from jaxscale.export.write_megatron import megatron
from jaxscale.export.write_torchtitan import torchtitan
from jaxscale.types import Cluster, Layout, ModelShape, Workload

TARGETS: dict[str, Callable[[ModelShape, Workload, Cluster, Layout], Export]] = {
    "maxtext": maxtext,
    "torchtitan": torchtitan,
    "megatron": megatron,
    "deepspeed": deepspeed,
    "accelerate": accelerate,
    "jax": plain_jax,
}

__all__ = ["TARGETS", "Export", "Imported", "read_deepspeed", "read_maxtext", "read_megatron"]
