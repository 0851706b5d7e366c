"""A grid of cases for `jaxscale check`: every model x sequence length x layout x cluster that is legal."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jaxscale.errors import LayoutError, SpecError
from jaxscale.types import AXES, Cluster, Layout, ModelShape, Workload, optimizer_named, parse_layout, precision_named
from jaxscale.types.legality import check_layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What a grid file says. In a layout, one axis may be `*`: the devices that the others leave."""

    models: tuple[str, ...]
    clusters: tuple[str, ...]
    layouts: tuple[str, ...]
    seq_lens: tuple[int, ...]
    microbatches: int = 1  # of each batch shard; the global batch follows
    precision: str = "bf16"
    optimizer: str = "adamw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One point of a grid."""

    shape: ModelShape
    workload: Workload
    cluster: Cluster
    layout: Layout

    def __str__(self) -> str:
        """The case in one line."""
        return f"{self.shape.name} {self.cluster.name} T={self.workload.seq_len} {self.layout}"


def load_grid(path: str) -> Grid:
    """Read a grid file."""
    from jaxscale.catalog.strict import build, parse_yaml, read_text

    grid = build(Grid, parse_yaml(read_text(path), where=path), where=path)
    for field in ("models", "clusters", "layouts", "seq_lens"):
        if not getattr(grid, field):
            raise SpecError(f"{path}: {field} is empty")
    return grid


def load_grids(path: str) -> list[Grid]:
    """Read one grid file, or all of a folder in the order of their names."""
    from pathlib import Path

    if not Path(path).is_dir():
        return [load_grid(path)]
    found = sorted(Path(path).glob("*.yaml"))
    if not found:
        raise SpecError(f"{path}: holds no .yaml file")
    return [load_grid(str(file)) for file in found]


def cases(grid: Grid) -> Iterator[Case]:
    """Every legal case; those that break a rule of divisibility are left out."""
    from jaxscale.catalog import load_cluster, load_model

    for cluster in map(load_cluster, grid.clusters):
        for shape in map(load_model, grid.models):
            for text in grid.layouts:
                for seq_len in grid.seq_lens:
                    case = _case(grid, shape, cluster, text, seq_len)
                    if case is not None:
                        yield case


def _case(grid: Grid, shape: ModelShape, cluster: Cluster, text: str, seq_len: int) -> Case | None:
    layout = fill_layout(text, cluster.num_devices)
    if layout is None:
        return None
    workload = Workload(
        seq_len=seq_len,
        global_batch_size=layout.batch_shards * layout.microbatch_size * grid.microbatches,
        precision=precision_named(grid.precision),
        optimizer=optimizer_named(grid.optimizer),
    )
    try:
        check_layout(shape, workload, layout, cluster.num_devices)
    except LayoutError:
        return None
    return Case(shape=shape, workload=workload, cluster=cluster, layout=layout)


def fill_layout(text: str, num_devices: int) -> Layout | None:
    """Read a layout whose starred axis takes the devices that are left; None where they cannot be shared out evenly.

    >>> str(fill_layout("fsdp=*,tensor=4", 32))
    'fsdp=8,tensor=4,microbatch_size=1,remat=full'
    """
    if text.count("*") > 1:
        raise SpecError(f"layout {text!r}: only one axis can be *")
    degrees = parse_layout(text.replace("*", "1"))
    if "*" not in text:
        return degrees
    taken = math.prod(getattr(degrees, axis) for axis in AXES)
    return parse_layout(text.replace("*", str(num_devices // taken))) if num_devices % taken == 0 else None
