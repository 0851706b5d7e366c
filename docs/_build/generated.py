"""MkDocs hook: what the code itself says, put in place of `<!-- generated: NAME ... -->` when the site is built."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import drawings  # MkDocs puts the folder of a hook on the path
import yaml

from jaxscale.catalog import chip_names, load_chip, model_names
from jaxscale.cli import VERBS, cli
from jaxscale.report.schedule_svg import schedule_svg
from jaxscale.schedule import build, replay
from jaxscale.types import REMAT_POLICIES
from jaxscale.units import format_bytes

_MARK = re.compile(r"<!-- generated: (\w+)((?: \S+)*) -->")
_STACKS = Path(__file__).parents[2] / "jaxscale" / "calibrate" / "stacks"
_HELP_WIDTH = 100


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in every mark of a page."""
    return _MARK.sub(lambda mark: _GENERATORS[mark[1]](*mark[2].split()), markdown)


def command_help() -> str:
    """The help of every verb and of its sub-commands, as click prints it."""
    parent = click.Context(cli, info_name="jaxscale")
    sections = [f"## jaxscale\n\n```text\n{_help(cli, parent)}\n```"]
    for verb in VERBS:
        command = cli.get_command(parent, verb)
        if command is not None:
            sections += _sections(command, click.Context(command, parent=parent, info_name=verb), level=2)
    return "\n\n".join(sections)


def _sections(command: click.Command, context: click.Context, *, level: int) -> Iterator[str]:
    yield f"{'#' * level} {context.command_path}\n\n```text\n{_help(command, context)}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _sections(below, click.Context(below, parent=context, info_name=name), level=level + 1)


def _help(command: click.Command, context: click.Context) -> str:
    context.max_content_width = context.terminal_width = _HELP_WIDTH
    return command.get_help(context)


def accuracy() -> str:
    """Held-out errors of every stack that ships, from the files of constants."""
    rows = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(_STACKS.glob("*.yaml"))]
    rows.sort(key=lambda row: row["provenance"]["held_out"]["median"])
    lines = [
        "| software stack | chip | runs | left out | median error | 90th percentile |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        said = row["provenance"]
        held = said["held_out"]
        lines.append(
            f"| {row['stack']} | {row['chip']} | {sum(said['rows'].values()):,} | one {held['left_out']} at a time "
            f"| {held['median']:.1%} | {held['p90']:.1%} |"
        )
    return "\n".join(lines)


def schedule(family: str, stages: str, microbatches: str, chunks: str = "1") -> str:
    """One pipeline schedule drawn; a backward pass takes twice a forward pass."""
    actions = build(family, stages=int(stages), microbatches=int(microbatches), chunks=int(chunks))
    apart = family == "zero_bubble"  # it runs input and weight gradients as two actions
    timeline = replay(actions, 1.0, 1.0, weight_s=1.0) if apart else replay(actions, 1.0, 2.0)
    drawing = schedule_svg(timeline, element_id=f"schedule-{family.replace('_', '-')}")
    one_block = re.sub(r"\n\s*\n", "\n", drawing)  # a blank line would end the HTML block
    return f'<figure class="drawing">{one_block}</figure>'


def remat_policies() -> str:
    """Every remat policy and the ops whose outputs it keeps."""
    lines = ["| policy | kept on the device | kept on the host |", "|---|---|---|"]
    for policy in REMAT_POLICIES.values():
        host = sorted(policy.offloaded) + ["layer input"] * policy.offload_layer_input
        device = sorted(policy.saved) + ["layer input"] * (not policy.offload_layer_input)
        lines.append(f"| `{policy.name}` | {', '.join(device) or '-'} | {', '.join(host) or '-'} |")
    return "\n".join(lines)


def chips() -> str:
    """The chips of the catalogue with their main drawings."""
    lines = ["| chip | dense bf16 peak | memory a program can use | memory bandwidth |", "|---|---|---|---|"]
    for name in chip_names():
        chip = load_chip(name)
        peak = chip.peak_flops_per_s.get("bf16", chip.peak_flops_per_s.get("fp32", 0.0))
        lines.append(
            f"| `{name}` | {peak / 1e12:,.0f} TFLOP/s | {format_bytes(chip.usable_hbm_bytes)} "
            f"| {chip.hbm_bytes_per_s / 1e9:,.0f} GB/s |"
        )
    return "\n".join(lines)


def models() -> str:
    """The names of all presets."""
    return ", ".join(f"`{name}`" for name in model_names())


_GENERATORS: dict[str, Callable[..., str]] = {
    "roofline": drawings.roofline,
    "memory_over_time": drawings.memory_over_time,
    "time_by_layout": drawings.time_by_layout,
    "collective_time": drawings.collective_time,
    "mesh": drawings.mesh,
    "command_help": command_help,
    "accuracy": accuracy,
    "schedule": schedule,
    "remat_policies": remat_policies,
    "chips": chips,
    "models": models,
}
