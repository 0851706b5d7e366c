"""What the verbs share: the options that say what is trained on what, and how they become values.

A verb that takes `@request_options()` is called with one `request`, which holds the resolved model shape, workload,
cluster(s) and layout:

    @click.command()
    @request_options(layout=True)
    @json_option
    def command(request: Request, as_json: bool) -> None: ...

MODEL may be a run spec file (see `jaxscale.catalog.load_spec`) that stands for all flags; a flag given beside it wins.
"""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jaxscale.catalog import (
    OutputSettings,
    SearchSettings,
    cluster_names,
    is_spec,
    load_cluster,
    load_model,
    load_spec,
    model_names,
)
from jaxscale.errors import SpecError
from jaxscale.types import (
    OPTIMIZERS,
    PRECISIONS,
    Cluster,
    Layout,
    ModelShape,
    Workload,
    optimizer_named,
    parse_layout,
    precision_named,
)

if TYPE_CHECKING:
    from jaxscale.report.page import Page

Command = TypeVar("Command", bound=Callable[..., Any])
LARGEST_CHIPS = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a command line asks about, as values; `search` and `output` come from a run spec, else they are defaults."""

    shape: ModelShape
    workload: Workload
    clusters: tuple[Cluster, ...]
    layout: Layout | None
    search: SearchSettings
    output: OutputSettings

    @property
    def cluster(self) -> Cluster:
        """The cluster, of a verb that answers for one."""
        if len(self.clusters) != 1:
            names = ", ".join(cluster.name for cluster in self.clusters)
            raise SpecError(f"--cluster: one cluster is needed here, got {len(self.clusters)}: {names}")
        return self.clusters[0]

    @property
    def only_layout(self) -> Layout:
        """The layout, of a verb that cannot do without."""
        if self.layout is None:
            raise SpecError('--layout is missing; write it like --layout "fsdp=16,tensor=4,remat=full"')
        return self.layout


def request_options(*, layout: bool = False) -> Callable[[Command], Command]:
    """Add MODEL, --cluster, --chips, --seq-len, --global-batch-size, --precision, --optimizer (and --layout)."""
    options = [
        click.argument("model", shell_complete=lambda *asked: _beginning(asked[-1], model_names())),
        click.option(
            "--cluster",
            "clusters",
            multiple=True,
            metavar="C",
            help="v5p-64, h100-sxm:64, cpu:8 or a YAML file.",
            shell_complete=lambda *asked: _beginning(asked[-1], cluster_names()),
        ),
        click.option(
            "--chips", type=click.IntRange(1, LARGEST_CHIPS), metavar="N", help="Another size of that cluster."
        ),
        click.option("--seq-len", type=int, metavar="S", help="Tokens of one sequence."),
        click.option("--global-batch-size", type=int, metavar="B", help="Sequences of one optimizer step."),
        click.option("--precision", metavar="P", help=f"{', '.join(PRECISIONS)}.  [default: bf16]"),
        click.option("--optimizer", metavar="O", help=f"{', '.join(OPTIMIZERS)}.  [default: adamw]"),
    ]
    if layout:
        options.append(click.option("--layout", metavar="L", help='Such as "fsdp=16,tensor=4,sp=true,remat=full".'))

    def decorate(verb: Command) -> Command:
        @functools.wraps(verb)
        def resolved(*args: Any, model: str, clusters: tuple[str, ...], **others: Any) -> Any:
            names = ("chips", "seq_len", "global_batch_size", "precision", "optimizer", "layout")
            flags = {name: others.pop(name, None) for name in names}
            return verb(*args, request=resolve(model, clusters, **flags), **others)

        for option in reversed(options):
            resolved = option(resolved)
        return resolved  # type: ignore[return-value]

    return decorate


def _beginning(typed: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(typed)]


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
report_option = click.option(
    "--report", type=click.Path(path_type=Path), metavar="FILE", help="Write a one-file HTML report."
)


def resolve(
    model: str,
    clusters: tuple[str, ...],
    *,
    chips: int | None = None,
    seq_len: int | None = None,
    global_batch_size: int | None = None,
    precision: str | None = None,
    optimizer: str | None = None,
    layout: str | None = None,
) -> Request:
    """Turn flags into values; every flag that is wrong is a JaxscaleError that names it."""
    spec = load_spec(model) if is_spec(model) else None
    given: dict[str, Any] = {"seq_len": seq_len, "global_batch_size": global_batch_size}
    given["precision"] = precision_named(precision) if precision is not None else None
    given["optimizer"] = optimizer_named(optimizer) if optimizer is not None else None
    given = {field: value for field, value in given.items() if value is not None}
    chosen = parse_layout(layout) if layout is not None else None
    if spec is None:
        for field in ("seq_len", "global_batch_size"):
            if field not in given:
                raise SpecError(_missing(f"--{field.replace('_', '-')}", "8192" if field == "seq_len" else "128"))
        return Request(
            shape=load_model(model), workload=Workload(**given), clusters=_clusters(clusters, chips), layout=chosen,
            search=SearchSettings(), output=OutputSettings(),
        )  # fmt: skip
    if chips is not None and not clusters:
        raise SpecError(f"--chips={chips} needs --cluster beside it where {model} names the cluster")
    return Request(
        shape=spec.model, workload=dataclasses.replace(spec.workload, **given),
        clusters=_clusters(clusters, chips) if clusters else spec.clusters, layout=chosen or spec.layout,
        search=spec.search, output=spec.output,
    )  # fmt: skip


def _clusters(names: tuple[str, ...], chips: int | None) -> tuple[Cluster, ...]:
    if not names:
        raise SpecError(_missing("--cluster", "v5p-64"))
    return tuple(load_cluster(name, num_chips=chips) for name in names)


def _missing(flag: str, example: str) -> str:
    return f"{flag} is missing; write it like {flag} {example}"


def check_writable(path: Path) -> None:
    """Raise unless a file can be written at `path`; called before long work whose result goes there."""
    if path.is_dir():
        raise SpecError(f"{path}: is a folder; name a file in it, such as {path / 'report.html'}")
    folder = path.parent
    if not folder.is_dir():
        raise SpecError(f"{path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise SpecError(f"{path}: cannot be written: permission denied")


def write_report(path: Path, page: "Page") -> None:
    """Write a page as one HTML file, and say on stderr where it is."""
    from jaxscale.report.page import render

    write_atomically(path, render(page))
    click.echo(f"report: {path}", err=True)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` beside `path` and move it into place, so that nobody meets half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SpecError(f"{path}: cannot be written: {error.strerror}") from error


def print_json(value: object) -> None:
    """Print one JSON document on stdout; what is not a finite number is null."""
    click.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
