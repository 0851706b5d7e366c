"""What an exporter gives and an importer gives back."""

from dataclasses import dataclass

from jaxscale.types import Layout, ModelShape, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A file for another tool. `notes` are sentences about what that tool cannot be told, or does differently."""

    text: str
    filename: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What a file of another tool says; `shape` is None where that tool keeps the model elsewhere."""

    shape: ModelShape | None
    workload: Workload
    layout: Layout
    notes: tuple[str, ...] = ()
