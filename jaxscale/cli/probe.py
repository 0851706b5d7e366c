"""`jaxscale probe`: microbenchmarks of the devices that are there, fitted into a cluster file."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jaxscale.calibrate import own_stack
from jaxscale.catalog import load_cluster
from jaxscale.cli.common import check_writable, json_option, print_json, write_atomically
from jaxscale.cli.progress import Bars
from jaxscale.types import Chip, Cluster, Stack, Tier, Workload, precision_named
from jaxscale.types.measurement import ProbeResult
from jaxscale.units import format_bytes, format_seconds, format_si

if TYPE_CHECKING:
    from rich.table import Table

QUIET_SIGMA = 0.2  # of log step time: what the formulas leave unexplained on a machine that does nothing else


@click.command()
@click.option("--cluster", "name", default="cpu:8", show_default=True, metavar="C", help="What is here, as catalogued.")
@click.option(
    "--output", default="probed.yaml", show_default=True, metavar="FILE", type=click.Path(path_type=Path),
    help="The cluster file to write.",
)  # fmt: skip
@click.option("--precision", default="bf16", show_default=True, metavar="P", help="Of the whole steps: bf16 or fp32.")
@click.option("--quick", is_flag=True, help="Fewer sizes and no whole steps: rougher, in a fraction of the time.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def command(name: str, output: Path, precision: str, quick: bool, quiet: bool, as_json: bool) -> None:
    """Measure the devices of this machine and write them as a cluster file.

    \b
    jaxscale probe --cluster cpu:8 --output here.yaml
    jaxscale predict tiny.yaml --cluster here.yaml --layout "fsdp=8" \\
        --seq-len 128 --global-batch-size 8

    Times matmuls, passes over memory, host copies, dispatch, and every collective over every size of mesh axis; on
    emulated devices also small whole steps, to which the constants of the training step are fitted. What was not
    measured (price, power, name) stays as the catalogue has it.
    """
    from jaxscale.measure import fit_cluster, probe_plan, run_probe

    base = load_cluster(name)
    check_writable(output)
    emulated = base.chip.kind == "cpu"
    plan = probe_plan(base.num_devices, emulated=emulated, quick=quick, precision=precision_named(precision))
    with Bars(quiet=quiet) as bars:
        result = run_probe(plan, on_news=bars.said)
    stack = own_stack(base, Workload(seq_len=1, global_batch_size=1))
    fitted = with_own_stack(fit_cluster(base, result, stack), result, stack)
    write_atomically(output, to_yaml(fitted))
    if as_json:
        from jaxscale.types.codec import encode

        print_json({"file": str(output), "cluster": encode(fitted), "probe": encode(result)})
    else:
        _print(fitted, result, output)


def with_own_stack(cluster: Cluster, probe: ProbeResult, stack: Stack) -> Cluster:
    """The cluster with the constants that the probe's small steps give, where it ran any."""
    if not probe.steps:
        return cluster
    from jaxscale.calibrate.own_steps import fit_own_steps

    fitted = fit_own_steps(stack, cluster, probe.steps)
    sigma = fitted.stack.sigma_log if fitted.stack is not None else 0.0
    if sigma <= QUIET_SIGMA:
        return fitted
    return dataclasses.replace(
        fitted, note=f"{cluster.note}; steps scatter by {sigma:.0%} around the fit: probe again on a quiet machine"
    )


def to_yaml(cluster: Cluster) -> str:
    """A cluster as the file that `load_cluster` reads: quantities as text with units."""
    import yaml

    document = {
        "name": cluster.name,
        "note": cluster.note,
        "chips_per_host": cluster.chips_per_host,
        "chip": _chip_mapping(cluster.chip),
        "tiers": [_tier_mapping(tier) for tier in cluster.tiers],
        "dollars_per_chip_hour": f"{cluster.dollars_per_chip_hour!r} $/h",
    }
    if cluster.stack is not None:
        document["stack"] = _stack_mapping(cluster.stack)
    return yaml.safe_dump(document, sort_keys=False, width=120)


def _chip_mapping(chip: Chip) -> dict:
    from jaxscale.catalog.chips import CHIP_UNITS
    from jaxscale.types._check import as_dict

    values = as_dict(chip)
    for field, dimension in CHIP_UNITS.items():
        values[field] = f"{getattr(chip, field)!r} {dimension.replace('bytes', 'B')}"
    values["peak_flops_per_s"] = {k: f"{v!r} FLOP/s" for k, v in chip.peak_flops_per_s.items()}
    return values


def _tier_mapping(tier: Tier) -> dict:
    mapping = {
        "name": tier.name, "kind": tier.kind, "shape": list(tier.shape),
        "bytes_per_s": f"{tier.bytes_per_s!r} B/s", "latency_s": f"{tier.latency_s!r} s",
    }  # fmt: skip
    return mapping | ({"wrap": list(tier.wrap)} if tier.wrap else {})


def _stack_mapping(stack: Stack) -> dict:
    """The constants that are not at their defaults."""
    from jaxscale.catalog.clusters import STACK_UNITS

    default = Stack(name=stack.name)
    values = {f.name: getattr(stack, f.name) for f in dataclasses.fields(Stack)}
    return {
        name: f"{value!r} {STACK_UNITS[name].replace('bytes', 'B')}" if name in STACK_UNITS else value
        for name, value in values.items()
        if name == "name" or value != getattr(default, name)
    }


def _print(cluster: Cluster, probe: ProbeResult, output: Path) -> None:
    from jaxscale.report.terminal import console

    out = console()
    out.print(f"[bold]{cluster.name}[/] written to {output}")
    out.print(cluster.note, markup=False)
    out.print(_figures(cluster, probe))


def _figures(cluster: Cluster, probe: ProbeResult) -> "Table":
    from rich.table import Table

    chip, tier = cluster.chip, cluster.tiers[0]
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, peak in chip.peak_flops_per_s.items():
        table.add_row(f"peak {name}", format_si(peak, "FLOP/s"))
    table.add_row("vector", format_si(chip.vector_flops_per_s, "FLOP/s"))
    table.add_row("memory", f"{format_bytes(chip.usable_hbm_bytes)} at {format_si(chip.hbm_bytes_per_s, 'B/s')}")
    table.add_row("host copies", format_si(chip.host_bytes_per_s, "B/s"))
    table.add_row(tier.name, f"{format_si(tier.bytes_per_s, 'B/s')}, {format_seconds(tier.latency_s)} a hop")
    for sample in probe.samples:
        if sample.what == "dispatch":
            table.add_row("dispatch", f"{format_seconds(sample.seconds)} of an empty program, host and all devices")
    table.add_row("samples", f"{len(probe.samples)} on {probe.num_devices} x {probe.device_kind}")
    return table
