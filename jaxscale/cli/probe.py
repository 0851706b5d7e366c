"""`jaxscale probe`: microbenchmarks of the devices that are there, fitted into a cluster file."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jaxscale.calibrate import own_stack
from jaxscale.catalog import load_cluster
from jaxscale.cli.common import check_writable, json_option, print_json, write_atomically
from jaxscale.cli.progress import Bars
from jaxscale.types import Chip, Cluster, Tier, Workload
from jaxscale.types.measurement import ProbeResult
from jaxscale.units import format_bytes, format_seconds, format_si

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@click.option("--cluster", "name", default="cpu:8", show_default=True, metavar="C", help="What is here, as catalogued.")
@click.option(
    "--output", default="probed.yaml", show_default=True, metavar="FILE", type=click.Path(path_type=Path),
    help="The cluster file to write.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="Fewer sizes: rougher figures, in a fraction of the time.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def command(name: str, output: Path, quick: bool, quiet: bool, as_json: bool) -> None:
    """Measure the devices of this machine and write them as a cluster file.

    \b
    jaxscale probe --cluster cpu:8 --output here.yaml
    jaxscale predict tiny.yaml --cluster here.yaml --layout "fsdp=8" \\
        --seq-len 128 --global-batch-size 8

    Times matmuls, passes over memory, host copies, dispatch, and every collective over every size of mesh axis. What
    was not measured (price, power, name) stays as the catalogue has it.
    """
    from jaxscale.measure import fit_cluster, probe_plan, run_probe

    base = load_cluster(name)
    check_writable(output)
    plan = probe_plan(base.num_devices, emulated=base.chip.kind == "cpu", quick=quick)
    with Bars(quiet=quiet) as bars:
        result = run_probe(plan, on_sample=lambda sample: bars.said(f"{sample.what} {sample.sizes} {sample.dtype}"))
    stack = own_stack(base, Workload(seq_len=1, global_batch_size=1))
    fitted = fit_cluster(base, result, stack)
    write_atomically(output, to_yaml(fitted))
    if as_json:
        from jaxscale.aot.codec import encode

        print_json({"file": str(output), "cluster": encode(fitted), "probe": encode(result)})
    else:
        _print(fitted, result, output)


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
