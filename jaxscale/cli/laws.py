"""`jaxscale laws`: the scaling laws that ship, what each counts, and what it says of a model."""

import math
import re
from typing import TYPE_CHECKING, Any

import click

from jaxscale.catalog import load_model
from jaxscale.cli.common import json_option, print_json
from jaxscale.cli.plan import NUMBER
from jaxscale.errors import SpecError
from jaxscale.plan.law import MARK_MEANING, Law, Point
from jaxscale.plan.laws import LAWS, law_named
from jaxscale.plan.shapes import point_of

if TYPE_CHECKING:
    from rich.table import Table

_OF_A_RUN = ("loss", "learning_rate", "batch_tokens", "critical_batch_tokens", "vocabulary")


@click.command()
@click.argument("name", required=False)
@click.option("--model", metavar="M", help="Evaluate for this model: a preset, a config.json or a YAML shape.")
@click.option("--tokens", type=NUMBER, metavar="D", help="Training tokens of that model, such as 15T.")
@click.option("--flops", type=NUMBER, metavar="C", help="Compute, in each law's own counting, to split by its optimum.")
@click.option("--context", "seq_len", type=int, default=4096, show_default=True, metavar="S", help="Sequence length.")
@json_option
def command(
    name: str | None, model: str | None, tokens: float | None, flops: float | None, seq_len: int, as_json: bool
) -> None:
    """List the scaling laws, or ask them about a model.

    \b
    jaxscale laws besiroglu
    jaxscale laws --model llama3-8b --tokens 15T
    jaxscale laws --flops 1e23

    Each law counts parameters its own way; a model's are converted. What lies outside the runs that a law was fitted on
    is said.
    """
    laws = [law_named(name)] if name else list(LAWS.values())
    if (model is None) != (tokens is None):
        raise SpecError("--model and --tokens go together: --model llama3-8b --tokens 15T")
    if model is None and flops is None:
        if as_json:
            print_json([_described(law) for law in laws])
        else:
            _print_laws(laws, one=name is not None)
        return
    point = point_of(load_model(model), float(tokens), seq_len) if model and tokens else None
    answers = [answer for law in laws for answer in _answers(law, point, flops)]
    if as_json:
        print_json(answers)
    else:
        _print_answers(answers)


def _described(law: Law) -> dict[str, Any]:
    return {
        "name": law.name,
        "title": law.title,
        "source": law.source,
        "mark": law.mark,
        "mark_meaning": MARK_MEANING[law.mark],
        "gives": list(law.quantities),
        "params": law.params,
        "flops": law.flops,
        "dataset": law.dataset,
        "batch_path": law.batch_path,
        "fitted": {key: list(bounds) for key, bounds in law.fitted.items()},
        "exponent_interval": list(law.exponent_interval) if law.exponent_interval else None,
        "note": law.note,
        "in_panel": law.in_panel,
    }


def _answers(law: Law, point: Point | None, flops: float | None) -> list[dict[str, Any]]:
    """Every quantity of a law that was asked for, with how far outside its runs the question lies."""
    found = []
    if flops is not None and "allocation" in law.quantities:
        params, tokens = (float(value) for value in law.quantities["allocation"](flops))
        found.append(_answer(law, "params", params, flops=flops) | {"tokens": tokens})
    if point is not None:
        asked = {"params": point.params(law.params), "tokens": point.tokens}
        for quantity in _OF_A_RUN:
            if quantity in law.quantities:
                value = float(law.quantities[quantity](point))
                if math.isfinite(value):
                    found.append(_answer(law, quantity, value, **asked))
    return found


def _answer(law: Law, quantity: str, value: float, **asked: float) -> dict[str, Any]:
    return {
        "law": law.name,
        "mark": law.mark,
        "quantity": quantity,
        "value": value,
        "params_counted": law.params,
        "decades_outside": law.decades_outside(**asked),
        "warnings": law.warnings(**asked),
    }


def _print_laws(laws: list[Law], *, one: bool) -> None:
    from jaxscale.report.terminal import console

    out = console()
    if one:
        for key, value in _described(laws[0]).items():
            if value not in (None, "", [], {}):
                out.print(f"[dim]{key.replace('_', ' '):<18}[/dim] {_plain(value)}", highlight=False)
        return
    table = _table("law", "mark", "gives", "N counts", "source")
    for law in laws:
        table.add_row(
            law.name, law.mark, ", ".join(q.replace("_tokens", "").replace("_", " ") for q in law.quantities),
            law.params.replace("_", " "), re.split(r",|;| and ", law.source)[0],
        )  # fmt: skip
    out.print(table)
    for mark, meaning in MARK_MEANING.items():
        out.print(f"{mark}: {meaning}", style="dim")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {low:.3g} to {high:.3g}" for key, (low, high) in value.items())
    return (
        ", ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in value)
        if isinstance(value, list)
        else str(value)
    )


def _print_answers(answers: list[dict[str, Any]]) -> None:
    from jaxscale.plan.budget.text import count
    from jaxscale.report.terminal import console

    table = _table("law", "mark", "says", "value", "decades outside")
    for a in answers:
        value = f"{a['value']:.4g}" if a["value"] < 1e4 else count(a["value"])
        value += f" on {count(a['tokens'])} tokens" if "tokens" in a else ""
        outside = ", ".join(f"{name} {decades:.1f}" for name, decades in a["decades_outside"].items())
        table.add_row(a["law"], a["mark"], a["quantity"].replace("_", " "), value, outside)
    console().print(table)


def _table(*columns: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("law", "source"))
    return table
