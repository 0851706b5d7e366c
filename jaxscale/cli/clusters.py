"""`jaxscale clusters`: what can be trained on; chips, slices and clusters with the source of every figure."""

from typing import TYPE_CHECKING

import click

from jaxscale.catalog import chip_names, cluster_names, load_chip, load_cluster
from jaxscale.catalog.chips import CatalogChip, catalog_chip
from jaxscale.cli.common import json_option, print_json
from jaxscale.errors import CatalogError
from jaxscale.types import Chip, Cluster, Tier
from jaxscale.types._check import as_dict
from jaxscale.units import format_bytes, format_seconds, format_si

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List chips and clusters, or show one.

    NAME is a chip (h100-sxm), a cluster (v5p-64, h100-sxm:64, a100-sxm-80gb:8x16, cpu:8) or a YAML file.
    """
    if name is None:
        if as_json:
            print_json(
                {"chips": [as_dict(load_chip(chip)) for chip in chip_names()], "clusters": list(cluster_names())}
            )
        else:
            _print_list()
        return
    entry = _chip_only(name)
    if entry is not None:
        print_json(_chip_json(entry)) if as_json else _print_chip(entry)
        return
    cluster = load_cluster(name)
    if as_json:
        print_json(as_dict(cluster) | {"num_chips": cluster.num_chips, "num_devices": cluster.num_devices})
    else:
        _print_cluster(cluster)


def _chip_only(name: str) -> CatalogChip | None:
    """The chip, where a name says no size."""
    try:
        return catalog_chip(name)
    except CatalogError:
        return None


def _chip_json(entry: CatalogChip) -> dict:
    networks = {"inner": as_dict(entry.inner), "outer": as_dict(entry.outer)}
    return {"chip": as_dict(entry.chip), **networks, "sources": dict(entry.sources)}


def _table(*columns: str) -> "Table":
    """A table without lines; columns but the first are numbers, unless the table has no header."""
    from rich.table import Table

    header = any(columns)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_header=header)
    table.add_column(columns[0], no_wrap=True)
    for title in columns[1:]:
        table.add_column(title, justify="right" if header else "left", no_wrap=header, overflow="fold")
    return table


def _print_list() -> None:
    from rich.console import Console

    console = Console(highlight=False)
    table = _table("chip", "bf16", "HBM GiB", "HBM/s", "link/s", "net/s", "$/h")
    for name in chip_names():
        entry = catalog_chip(name)
        chip = entry.chip
        table.add_row(
            name,
            format_si(chip.peak("bf16"), "F"),
            f"{chip.usable_hbm_bytes / 2**30:.1f} of {chip.hbm_bytes / 2**30:.0f}",
            format_si(chip.hbm_bytes_per_s, "B"),
            format_si(entry.inner.bytes_per_s, "B"),
            format_si(entry.outer.bytes_per_s, "B"),
            f"{chip.dollars_per_hour:.2f}" if chip.dollars_per_hour else "-",
        )
    console.print(table)
    console.print("\n[bold]TPU slices[/bold] (v2 to v5p and tpu7x count TensorCores, two a chip)")
    slices = _table("", "")
    for prefix, sizes in _slices().items():
        slices.add_row(prefix, " ".join(sizes))
    console.print(slices)
    click.echo(_HOW_TO_NAME)


_HOW_TO_NAME = """
By topology: v5p:4x4x12. Several slices: 2xv5p-256. GPUs: h100-sxm:64 (in nodes
of 8) or a100-sxm-80gb:8x16 (8 a node, 16 nodes). Emulated devices: cpu:8.
Your own: a .yaml file, see tpu_configs/. link/s is one ICI link one way, or a
GPU's share of its node's network; net/s a chip's share of the network beyond.
`jaxscale clusters h100-sxm` gives the source of every figure."""


def _slices() -> dict[str, list[str]]:
    """Sizes by generation, of the names that are TPU slices."""
    found: dict[str, list[str]] = {}
    for name in cluster_names():
        prefix, dash, size = name.rpartition("-")
        if dash and size.isdigit():
            found.setdefault(f"{prefix}-", []).append(size)
    return found


def _print_chip(entry: CatalogChip) -> None:
    """Every figure with the number of its source, and the sources below."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"[bold]{entry.chip.name}[/bold]  {entry.chip.kind}")
    numbers = {source: i for i, source in enumerate(dict.fromkeys(entry.sources.values()), start=1)}
    table = _table("figure", "value", "source")
    for figure, value in _figures(entry):
        table.add_row(figure, value, str(numbers[entry.sources[figure]]))
    console.print(table)
    sources = _table("", "")
    for source, number in numbers.items():
        sources.add_row(f"{number}", source)
    console.print(sources, markup=False)


def _figures(entry: CatalogChip) -> list[tuple[str, str]]:
    chip: Chip = entry.chip
    rows = [(f"peak_flops_per_s.{k}", format_si(v, "FLOP/s")) for k, v in chip.peak_flops_per_s.items()]
    rows += [
        ("vector_flops_per_s", format_si(chip.vector_flops_per_s, "FLOP/s")),
        ("hbm_bytes", format_bytes(chip.hbm_bytes)),
        ("usable_hbm_bytes", format_bytes(chip.usable_hbm_bytes)),
        ("hbm_bytes_per_s", format_si(chip.hbm_bytes_per_s, "B/s")),
        ("host_bytes_per_s", format_si(chip.host_bytes_per_s, "B/s")),
        ("matmul_tile", str(chip.matmul_tile)),
        ("num_cores", str(chip.num_cores)),
        ("clock_hz", format_si(chip.clock_hz, "Hz")),
        ("devices_per_chip", str(chip.devices_per_chip)),
        ("power_w", f"{chip.power_w:g} W"),
        ("dollars_per_hour", f"${chip.dollars_per_hour:g}"),
    ]
    for field, link in (("inner", entry.inner), ("outer", entry.outer)):
        rows.append((f"{field}.bytes_per_s", f"{format_si(link.bytes_per_s, 'B/s')} {link.name}"))
        rows.append((f"{field}.latency_s", format_seconds(link.latency_s)))
    return [row for row in rows if row[0] in entry.sources]


def _print_cluster(cluster: Cluster) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"[bold]{cluster.name}[/bold]")
    console.print(cluster.note or f"{cluster.num_chips} chips", markup=False)
    chip = cluster.chip
    table = _table("", "")
    table.add_row("chips", f"{cluster.num_chips} x {chip.name}, {cluster.chips_per_host} a host")
    table.add_row("JAX devices", str(cluster.num_devices))
    table.add_row("peak bf16", format_si(chip.peak("bf16") * cluster.num_chips, "FLOP/s"))
    table.add_row("usable HBM", f"{format_bytes(chip.usable_hbm_bytes)} a chip")
    for tier in cluster.tiers:
        table.add_row(tier.name, _tier_text(tier))
    if cluster.aot_topology:
        table.add_row("compiler name", cluster.aot_topology)
    if cluster.dollars_per_chip_hour:
        price = cluster.dollars_per_chip_hour
        table.add_row("price", f"${price:g} a chip and hour, ${price * cluster.num_chips:,.0f} an hour")
    console.print(table)


def _tier_text(tier: Tier) -> str:
    rate, hop = format_si(tier.bytes_per_s, "B/s"), format_seconds(tier.latency_s)
    if tier.kind == "memory":
        return f"one memory for {tier.size}: {rate} between two of them, {hop} a hop"
    if tier.kind == "switch":
        return f"switch of {tier.size}: {rate} a member one way, {hop} a hop"
    dims = " x ".join(f"{dim}{' (ring)' if ring else ''}" for dim, ring in zip(tier.shape, tier.wrap, strict=True))
    return f"torus {dims}: {rate} a link one way, {hop} a hop"
