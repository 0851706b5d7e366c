"""From a sweep file to measurements: layouts filled in or searched for, each with what is predicted of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxscale.calibrate import own_stack
from jaxscale.cli.grid import fill_layout
from jaxscale.cli.sweep_spec import Best, Cell, MeasureSettings, SweepSpec
from jaxscale.cost import estimate
from jaxscale.errors import LayoutError
from jaxscale.search import parse_limits, search
from jaxscale.types import Estimate, Layout
from jaxscale.types.legality import check_layout
from jaxscale.types.measurement import MeasureRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measurement to make, and what is predicted of it."""

    request: MeasureRequest
    predicted: Estimate

    def to_json(self) -> dict:
        """As `--json` prints it."""
        asked = self.request
        return {
            "model": asked.shape.name,
            "cluster": asked.cluster.name,
            "seq_len": asked.workload.seq_len,
            "global_batch_size": asked.workload.global_batch_size,
            "precision": asked.workload.precision.name,
            "layout": str(asked.layout),
            "seed": asked.seed,
            "predicted_s": self.predicted.step_time_s,
            "predicted_memory_bytes": self.predicted.memory_bytes,
            "predicted_fits": self.predicted.fits,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A combination that cannot run, and why."""

    what: str
    why: str


def points_of(spec: SweepSpec) -> tuple[list[Point], list[Skipped]]:
    """Every measurement of a sweep, none twice, and the combinations that cannot run."""
    points: dict[str, Point] = {}
    skipped: list[Skipped] = []
    for cell in spec.cells:
        layouts, impossible = _layouts(cell)
        skipped += impossible
        stack = own_stack(cell.cluster, cell.workload)
        for layout in layouts:
            predicted = estimate(cell.shape, cell.workload, cell.cluster, layout, stack)
            for request in _requests(cell, layout, spec.measure):
                points.setdefault(repr(request), Point(request=request, predicted=predicted))
    return list(points.values()), skipped


def _requests(cell: Cell, layout: Layout, measure: MeasureSettings) -> Sequence[MeasureRequest]:
    return [
        MeasureRequest(
            shape=cell.shape, workload=cell.workload, cluster=cell.cluster, layout=layout,
            num_steps=measure.steps, num_warmup_steps=measure.warmup, seed=seed,
        )
        for seed in measure.seeds
    ]  # fmt: skip


def _layouts(cell: Cell) -> tuple[list[Layout], list[Skipped]]:
    """Layouts of a cell that can run its model and batch."""
    if isinstance(cell.layouts, Best):
        return _best(cell, cell.layouts)
    layouts: list[Layout] = []
    skipped: list[Skipped] = []
    for text in cell.layouts:
        layout = fill_layout(text, cell.cluster.num_devices)
        try:
            if layout is None:
                raise LayoutError(f"* cannot be filled on {cell.cluster.num_devices} devices")
            check_layout(cell.shape, cell.workload, layout, cell.cluster.num_devices)
        except LayoutError as error:
            skipped.append(Skipped(what=f"{_name(cell)}: {text}", why=str(error)))
        else:
            layouts.append(layout)
    return layouts, skipped


def _best(cell: Cell, best: Best) -> tuple[list[Layout], list[Skipped]]:
    found = search(
        cell.shape, cell.workload, cell.cluster, stack=own_stack(cell.cluster, cell.workload),
        limits=parse_limits(*best.limits), objective=best.objective, top=best.best,
    )  # fmt: skip
    if not found.top:
        return [], [Skipped(what=f"{_name(cell)}: best {best.best}", why="no layout fits in memory")]
    return [ranked.layout for ranked in found.top], []


def _name(cell: Cell) -> str:
    batch = f"{cell.workload.global_batch_size} x {cell.workload.seq_len}"
    return f"{cell.shape.name} on {cell.cluster.name}, {batch}"
