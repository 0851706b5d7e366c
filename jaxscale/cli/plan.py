"""`jaxscale plan`: from a budget to a model, a batch, a layout, days and money."""

from pathlib import Path

import click

from jaxscale.calibrate import own_stack
from jaxscale.catalog import load_cluster
from jaxscale.cli.common import check_writable, json_option, print_json, report_option, write_report
from jaxscale.errors import SpecError
from jaxscale.search import parse_limits, search
from jaxscale.types import Cluster, Estimate, ModelShape, Workload

# What the planner lets the search try: the same answer for dense models in a tenth of the time.
_LIMITS = ("remat=full|none|dots|attention", "offload_optimizer=false")
_LONG_CONTEXT = 8192  # beyond this the context axis is tried too


class _Number(click.ParamType):
    """A count such as 1e23, 2T or 300B; whether it makes sense is the planner's to say."""

    name = "number"
    _scales = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}  # noqa: RUF012

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        suffix = text[-1:].upper() if text[-1:].isalpha() else ""
        try:
            return float(text[: len(text) - len(suffix)]) * self._scales[suffix]
        except (ValueError, KeyError):
            self.fail(f'{text!r} is not a number such as 1e23, "300B" or "2T"', param, ctx)


NUMBER = _Number()


@click.command()
@click.option("--budget", metavar="B", help='"256xh100-sxm for 21 days" or "$2M on h100-sxm:256".')
@click.option("--flops", type=NUMBER, metavar="C", help="Training compute, such as 1e23.")
@click.option("--loss", type=float, metavar="L", help="Loss to reach, nats per token.")
@click.option("--tokens", type=NUMBER, metavar="D", help="Training tokens, such as 2T.")
@click.option("--cluster", metavar="C", help="Where it runs, if --budget does not say: v5p-512, h100-sxm:256.")
@click.option("--unique-tokens", type=NUMBER, metavar="U", help="Tokens that exist; more are repetition.")
@click.option("--inference-tokens", type=NUMBER, metavar="I", help="Tokens that will be served over its life.")
@click.option("--max-params", type=NUMBER, metavar="N", help="Largest total parameter count.")
@click.option("--moe", is_flag=True, help="Allow a mixture of experts.")
@click.option("--context", "seq_len", type=int, default=4096, show_default=True, metavar="S", help="Sequence length.")
@click.option("--second-hand", is_flag=True, help="Also ask laws whose constants are not verified; each is marked.")
@report_option
@json_option
def command(
    budget: str | None, cluster: str | None, report: Path | None, as_json: bool, **asked: float | int | bool | None
) -> None:
    """From a budget to a model, a batch, a layout, days and money.

    \b
    jaxscale plan --budget "256xh100-sxm for 21 days"
    jaxscale plan --flops 1e23 --inference-tokens 10T --cluster v5p-512

    Every scaling law that applies is asked; the plan follows the one whose answer would waste least compute if another
    were true. Utilisation comes from the cost model at the best layout.
    """
    from jaxscale.plan.budget.planner import make_plan
    from jaxscale.plan.budget.text import plan_json, plan_text

    if report is not None:
        check_writable(report)
    plan = make_plan(_ask(budget, cluster, asked), best_estimate)
    if report is not None:
        from jaxscale.report.kinds.plan import plan_page

        write_report(report, plan_page(plan))
    if as_json:
        print_json(plan_json(plan))
    else:
        click.echo(plan_text(plan))


def _ask(budget: str | None, cluster: str | None, asked: dict):
    from jaxscale.plan.budget.ask import Ask, parse_budget, time_for_money

    if budget is None:
        return Ask(cluster=load_cluster(cluster) if cluster else None, **asked)
    if cluster is not None:
        raise SpecError("--budget names the cluster already; give --cluster only without it")
    read = parse_budget(budget)
    where = load_cluster(read.cluster)
    time_s = read.time_s if read.dollars is None else time_for_money(where, read.dollars)
    return Ask(cluster=where, time_s=time_s, **asked)


def best_estimate(shape: ModelShape, workload: Workload, cluster: Cluster) -> Estimate | None:
    """The best layout that the search finds, or None."""
    limits = _LIMITS if workload.seq_len > _LONG_CONTEXT else (*_LIMITS, "context<=1")
    result = search(shape, workload, cluster, stack=own_stack(cluster, workload), top=1, limits=parse_limits(*limits))
    return result.ranked[0] if result.ranked else None
