"""`jaxscale plan`: from a budget to a model, a batch, a layout, days and money."""

from pathlib import Path

import click

from jaxscale.cli.common import check_writable, json_option, print_json, report_option, write_report


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
    from jaxscale.api.plans import plan_run

    if report is not None:
        check_writable(report)
    plan = plan_run(budget, cluster=cluster, **asked)  # type: ignore[arg-type]
    if report is not None:
        write_report(report, plan.page())
    if as_json:
        print_json(plan.to_json())
    else:
        click.echo(str(plan))
