"""The file of a sweep: which models, workloads, clusters and layouts to measure, and how.

    models: [gpt2-124m, tiny.yaml, {base: gpt2-124m, d_ff: [3072, 3000]}]
    clusters: [cpu:8]
    workloads: {seq_len: [128, 256], global_batch_size: 8, precision: fp32}
    layouts: ["fsdp=*", "fsdp=*,tensor=2"]
    measure: {steps: 10, warmup: 2, timeout: 10 min}

Where a value is a list, each is taken: every combination is a measurement. `layouts` may also be a grid,
`{grid: {tensor: [1, 2], fsdp: "*", remat: [none, full]}}`, or the best that are predicted,
`{best: 8, limits: ["tensor<=4"]}`. `runs` lists measurements one by one, beside the grid or in its place.
"""

import dataclasses
import itertools
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxscale.catalog import load_cluster, load_model
from jaxscale.catalog.spec import workload_from_mapping
from jaxscale.catalog.strict import (
    build,
    convert,
    describe,
    parse_yaml,
    read_text,
    reject_unknown,
    require_mapping,
)
from jaxscale.cli.grid import fill_layout
from jaxscale.errors import JaxscaleError, SpecError
from jaxscale.types import Cluster, ModelShape, Workload
from jaxscale.types._check import require_positive, require_positive_int
from jaxscale.units import parse_quantity

SECTIONS = ("models", "clusters", "workloads", "layouts", "measure", "runs")
GRID_SECTIONS = SECTIONS[:4]
MAX_COMBINATIONS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best layouts that are predicted, in place of named ones."""

    best: int
    limits: tuple[str, ...] = ()
    objective: str = "time"

    def __post_init__(self) -> None:
        require_positive_int("layouts", best=self.best)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """How each is measured. Several seeds measure the same step several times."""

    steps: int = 10
    warmup: int = 2
    seeds: tuple[int, ...] = (0,)
    timeout_s: float = 900.0

    def __post_init__(self) -> None:
        require_positive_int("measure", steps=self.steps)
        require_positive_int("measure", minimum=0, warmup=self.warmup, **{f"seed {s}": s for s in self.seeds})
        require_positive("measure", timeout_s=self.timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model on one cluster with one workload, and the layouts to try: texts in which an axis may be `*`."""

    shape: ModelShape
    workload: Workload
    cluster: Cluster
    layouts: tuple[str, ...] | Best


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """A sweep file as values."""

    cells: tuple[Cell, ...]
    measure: MeasureSettings = field(default_factory=MeasureSettings)


def load_sweep(path: str | Path) -> SweepSpec:
    """Read a sweep file; whatever is wrong in it is an error that names the field, the value and what is allowed."""
    path = Path(path)
    document = parse_yaml(read_text(path), where=str(path))
    reject_unknown(document, SECTIONS, where=str(path))
    cells: list[Cell] = []
    if any(section in document for section in GRID_SECTIONS) or "runs" not in document:
        missing = [section for section in GRID_SECTIONS if not document.get(section)]
        if missing:
            raise SpecError(f"{path}: {', '.join(missing)} missing or empty; a sweep has {', '.join(GRID_SECTIONS)}")
        cells += _grid(document, path)
    cells += [_run(row, path, f"{path}: runs[{i}]") for i, row in enumerate(_items(document.get("runs") or []))]
    return SweepSpec(cells=tuple(cells), measure=_measure(document.get("measure") or {}, f"{path}: measure"))


def _grid(document: Mapping[str, Any], path: Path) -> Iterator[Cell]:
    shapes = [s for i, m in enumerate(_items(document["models"])) for s in _shapes(m, path, f"{path}: models[{i}]")]
    workloads = [
        workload_from_mapping(values, where=f"{path}: workloads[{i}]")
        for i, row in enumerate(_items(document["workloads"]))
        for values in combinations(row, where=f"{path}: workloads[{i}]")
    ]
    layouts = _layouts(document["layouts"], f"{path}: layouts")
    for name in _items(document["clusters"]):
        cluster = load_cluster(_beside(path, name, f"{path}: clusters"))
        for shape, workload in itertools.product(shapes, workloads):
            yield Cell(shape=shape, workload=workload, cluster=cluster, layouts=layouts)


def _run(row: object, path: Path, where: str) -> Cell:
    values = require_mapping(row, where=where)
    reject_unknown(values, ("model", "cluster", "workload", "layout"), where=where)
    missing = [key for key in ("model", "cluster", "workload", "layout") if key not in values]
    if missing:
        raise SpecError(f"{where}: {', '.join(missing)} missing")
    [shape, *others] = _shapes(values["model"], path, f"{where}: model")
    if others:
        raise SpecError(f"{where}: model stands for {1 + len(others)} models; a run has one")
    return Cell(
        shape=shape,
        workload=workload_from_mapping(values["workload"], where=f"{where}: workload"),
        cluster=load_cluster(_beside(path, values["cluster"], f"{where}: cluster")),
        layouts=(_checked(values["layout"], f"{where}: layout"),),
    )


def _shapes(value: object, path: Path, where: str) -> list[ModelShape]:
    """Models of one entry: a preset or a file, a shape in place, or `base` with fields changed."""
    if not isinstance(value, Mapping):
        return [load_model(_beside(path, value, where))]
    return [_shape(values, path, where) for values in combinations(value, where=where)]


def _shape(values: dict[str, Any], path: Path, where: str) -> ModelShape:
    if "base" not in values:
        return build(ModelShape, {"name": path.stem, **values}, where=where)
    base = load_model(_beside(path, values.pop("base"), f"{where}: base"))
    hints = typing.get_type_hints(ModelShape)
    reject_unknown(values, hints, where=where)
    said = ",".join(f"{key}={value}" for key, value in values.items())
    changes = {key: convert(value, hints[key], where=f"{where}: {key}") for key, value in values.items()}
    return dataclasses.replace(base, **{"name": f"{base.name}({said})" if said else base.name, **changes})


def _layouts(value: object, where: str) -> tuple[str, ...] | Best:
    if not isinstance(value, Mapping):
        return tuple(_checked(item, f"{where}[{i}]") for i, item in enumerate(_items(value)))
    if "grid" not in value:
        given = dict(value)
        if isinstance(given.get("limits"), str):
            given["limits"] = [given["limits"]]
        return build(Best, given, where=where)
    reject_unknown(value, ("grid",), where=where)
    grid = combinations(value["grid"], where=f"{where}: grid")
    return tuple(_checked(",".join(f"{k}={_word(v)}" for k, v in axes.items()), f"{where}: grid") for axes in grid)


def _checked(value: object, where: str) -> str:
    """A layout's text, once it is known that it can be read."""
    text = _text(value, where)
    try:
        fill_layout(text, num_devices=1)
    except JaxscaleError as error:
        raise SpecError(f"{where}: {error}") from error
    return text


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _measure(value: object, where: str) -> MeasureSettings:
    values = require_mapping(value, where=where)
    reject_unknown(values, ("steps", "warmup", "seeds", "timeout"), where=where)
    made: dict[str, Any] = {}
    if "timeout" in values:
        made["timeout_s"] = parse_quantity(values.pop("timeout"), "s", field=f"{where}: timeout")
    return build(MeasureSettings, values, where=where, **made)


def combinations(value: object, *, where: str) -> list[dict[str, Any]]:
    """Every choice of one item for each value of a mapping that is a list.

    >>> combinations({"seq_len": [128, 256], "precision": "fp32"}, where="workloads")
    [{'seq_len': 128, 'precision': 'fp32'}, {'seq_len': 256, 'precision': 'fp32'}]
    """
    values = require_mapping(value, where=where)
    choices = {key: item if isinstance(item, list) else [item] for key, item in values.items()}
    for key, items in choices.items():
        if not items:
            raise SpecError(f"{where}: {key} is an empty list")
    count = 1
    for items in choices.values():
        count *= len(items)
    if count > MAX_COMBINATIONS:
        raise SpecError(f"{where}: {count} combinations; at most {MAX_COMBINATIONS} are allowed")
    return [dict(zip(choices, chosen, strict=True)) for chosen in itertools.product(*choices.values())]


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _beside(path: Path, value: object, where: str) -> str:
    """A path in a sweep file is meant from the file's folder."""
    text = _text(value, where)
    return str(path.parent / text) if text.lower().endswith((".json", ".yaml", ".yml")) else text


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise SpecError(f"{where} must be text, got {describe(value)}")
    return value
