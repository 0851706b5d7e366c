"""The run spec file: one YAML that stands for all flags of a command.

    model: llama3-8b                # a preset, a path (from the file's folder), or a shape in place
    workload: {seq_len: 8192, global_batch_size: 128, precision: bf16, optimizer: adamw}
    cluster: v5p-64                 # a name, a path, a description in place, or a list of these
    search: {top: 5, limits: "tensor<=8,remat=full|dots", check: [compile, twin]}
    output: {report: report.html}

`layout: "fsdp=16,tensor=4"` (or a mapping) stands in the place of `search` where the layout is known.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from jaxscale.catalog.clusters import cluster_from_mapping, load_cluster
from jaxscale.catalog.models import load_model
from jaxscale.catalog.strict import build, describe, is_folder, parse_yaml, read_text, reject_unknown, require_mapping
from jaxscale.errors import SpecError
from jaxscale.types import Cluster, Layout, ModelShape, Workload, optimizer_named, parse_layout, precision_named
from jaxscale.types._check import require_choice, require_positive, require_positive_int
from jaxscale.units import parse_count

Objective = Literal["time", "money", "memory"]
Check = Literal["compile", "twin"]
SECTIONS = ("model", "workload", "cluster", "layout", "search", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """What to look for. `limits` are comparisons on fields of a layout, as `--limit` reads them."""

    top: int = 3
    objective: Objective = "time"  # step time, tokens per second per dollar, or memory
    limits: tuple[str, ...] = ()
    check: tuple[Check, ...] = ()
    headroom: float = 0.0  # share of a chip's usable memory to leave free; 0 = the command's default

    def __post_init__(self) -> None:
        require_positive_int("search", top=self.top)
        require_choice("search", allowed=get_args(Objective), objective=self.objective)
        require_positive("search", allow_zero=True, headroom=self.headroom)
        for check in self.check:
            require_choice("search", allowed=get_args(Check), check=check)
        if self.headroom >= 1:
            raise SpecError(f"search: headroom={self.headroom} must be a share below 1, such as 0.05")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSettings:
    """Where the answer goes beside the terminal."""

    json: bool = False
    report: str = ""  # path of the HTML file; empty = none


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """A run spec file as values."""

    model: ModelShape
    workload: Workload
    clusters: tuple[Cluster, ...]
    layout: Layout | None = None
    search: SearchSettings = field(default_factory=SearchSettings)
    output: OutputSettings = field(default_factory=OutputSettings)


def is_spec(path: str) -> bool:
    """Whether a path is a run spec rather than a YAML shape: it has a `model` and a `workload`."""
    if not path.lower().endswith((".yaml", ".yml")):
        return False
    return {"model", "workload"} <= parse_yaml(read_text(path), where=path).keys()


def load_spec(path: str | Path) -> RunSpec:
    """Read a run spec; unknown keys, missing sections and contradictions are errors that name them."""
    path = Path(path)
    where = str(path)
    document = parse_yaml(read_text(path), where=where)
    reject_unknown(document, SECTIONS, where=where)
    for section in ("model", "workload", "cluster"):
        if document.get(section) is None:
            raise SpecError(f"{where}: section {section} is missing; known sections: {', '.join(SECTIONS)}")
    if "layout" in document and "search" in document:
        raise SpecError(f"{where}: give either layout (to predict it) or search (to find one), not both")
    return RunSpec(
        model=_model(document["model"], path),
        workload=workload_from_mapping(document["workload"], where=f"{where}: workload"),
        clusters=_clusters(document["cluster"], path),
        layout=_layout(document["layout"], f"{where}: layout") if "layout" in document else None,
        search=_search(document.get("search") or {}, f"{where}: search"),
        output=build(OutputSettings, document.get("output") or {}, where=f"{where}: output"),
    )


def _model(value: object, path: Path) -> ModelShape:
    if isinstance(value, str):
        return load_model(_beside(path, value))
    shape = require_mapping(value, where=f"{path}: model")
    return build(ModelShape, {"name": path.stem, **shape}, where=f"{path}: model")


def _beside(path: Path, text: str) -> str:
    """A path written in a spec is meant from the spec's folder."""
    beside = str(path.parent / text)
    return beside if text.lower().endswith((".json", ".yaml", ".yml")) or is_folder(beside) else text


def _clusters(value: object, path: Path) -> tuple[Cluster, ...]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise SpecError(f"{path}: cluster is an empty list")
    return tuple(_cluster(item, path) for item in values)


def _cluster(value: object, path: Path) -> Cluster:
    if isinstance(value, str):
        return load_cluster(_beside(path, value))
    where = f"{path}: cluster"
    return cluster_from_mapping({"name": path.stem, **require_mapping(value, where=where)}, where=where)


def workload_from_mapping(value: object, *, where: str) -> Workload:
    """Build a workload from its section: `precision` and `optimizer` by name, `training_tokens` such as "15T"."""
    values: dict[str, Any] = require_mapping(value, where=where)
    made: dict[str, Any] = {}
    for key, named in (("precision", precision_named), ("optimizer", optimizer_named)):
        if key in values:
            made[key] = named(_text(values.pop(key), f"{where}: {key}"))
    if values.get("training_tokens") is not None:
        made["training_tokens"] = parse_count(values.pop("training_tokens"), field=f"{where}: training_tokens")
    return build(Workload, values, where=where, **made)


def _layout(value: object, where: str) -> Layout:
    if isinstance(value, dict):
        value = ",".join(f"{key}={_word(item, f'{where}: {key}')}" for key, item in value.items())
    return parse_layout(_text(value, where))


def _word(value: object, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "/".join(_text(item, where) for item in value)
    if not isinstance(value, str | int):
        raise SpecError(f"{where}={value!r} must be a number or a word, got {describe(value)}")
    return str(value)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise SpecError(f"{where} must be text, got {describe(value)}")
    return value


def _search(value: object, where: str) -> SearchSettings:
    """A single limit or check may be written without a list."""
    values = require_mapping(value, where=where)
    for key in ("limits", "check"):
        if isinstance(values.get(key), str):
            values[key] = [values[key]]
    return build(SearchSettings, values, where=where)
