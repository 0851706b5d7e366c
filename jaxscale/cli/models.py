"""`jaxscale models`: what can be trained, with exact parameter counts."""

import click

from jaxscale.catalog import load_model, model_names
from jaxscale.cli.common import json_option, print_json
from jaxscale.cost.inventory import ParameterCount, count_parameters
from jaxscale.types import ModelShape
from jaxscale.types._check import as_dict
from jaxscale.units import format_si


@click.command()
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List model presets, or show one.

    NAME is a preset, a Hugging Face config.json (or its folder), or a YAML shape.
    """
    if name is None:
        shapes = [load_model(preset) for preset in model_names()]
        if as_json:
            print_json([_summary(shape, count_parameters(shape)) for shape in shapes])
        else:
            _print_list(shapes)
        return
    shape = load_model(name)
    parameters = count_parameters(shape)
    if as_json:
        print_json(_summary(shape, parameters) | {"shape": as_dict(shape)})
    else:
        _print_one(shape, parameters)


def _summary(shape: ModelShape, parameters: ParameterCount) -> dict:
    return {
        "name": shape.name,
        "family": shape.family,
        "source": shape.source,
        "parameters": as_dict(parameters),
    }


def attention_kind(shape: ModelShape) -> str:
    """How queries share keys and values: MLA, MHA, MQA or GQA, with the numbers of heads.

    >>> attention_kind(load_model("llama3-8b"))
    'GQA 32/8'
    """
    if shape.mla:
        return f"MLA {shape.num_heads}"
    if shape.num_kv_heads == shape.num_heads:
        return f"MHA {shape.num_heads}"
    return f"{'MQA' if shape.num_kv_heads == 1 else 'GQA'} {shape.num_heads}/{shape.num_kv_heads}"


def _print_list(shapes: list[ModelShape]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("model", no_wrap=True)
    for title in ("params", "active", "layers", "d_model"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("attention", no_wrap=True)
    table.add_column("experts", no_wrap=True)
    for shape in shapes:
        count = count_parameters(shape)
        moe = shape.moe
        table.add_row(
            shape.name,
            parameters_text(count.total),
            parameters_text(count.active) if moe else "",
            str(shape.num_layers),
            str(shape.d_model),
            attention_kind(shape),
            f"{moe.experts_per_token} of {moe.num_experts}" if moe else "",
        )
    console = Console()
    console.print(table)
    console.print(f"\n{len(shapes)} presets. A config.json of Hugging Face or a YAML shape is a model too.")


def parameters_text(count: int) -> str:
    """Write a parameter count as people say it.

    >>> parameters_text(8_030_261_248), parameters_text(124_439_808)
    ('8.03B', '124M')
    """
    return format_si(count).replace(" ", "").replace("G", "B")


def _print_one(shape: ModelShape, parameters: ParameterCount) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold]{shape.name}[/bold]  {shape.family}", soft_wrap=True)
    if shape.source:
        console.print(f"from {shape.source}", markup=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for part, count in as_dict(parameters).items():
        table.add_row(f"{part} parameters", f"{count:,}")
    console.print(table)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in _facts(shape):
        table.add_row(*row)
    console.print(table)


def _facts(shape: ModelShape) -> list[tuple[str, str]]:
    """What tells the model from a plain one, in words."""
    rows = [
        ("layers", f"{shape.num_layers} of d_model {shape.d_model}, d_ff {shape.d_ff} ({shape.mlp})"),
        ("attention", f"{attention_kind(shape)} heads of {shape.mla.qk_head_dim if shape.mla else shape.head_dim}"),
        ("vocabulary", f"{shape.vocab_size}, {'tied' if shape.tied_embeddings else 'untied'} embeddings"),
        ("norm", f"{shape.norm} {shape.norm_placement}" + (f", qk-norm {shape.qk_norm}" * (shape.qk_norm != "none"))),
        ("positions", _positions(shape)),
    ]
    if shape.window:
        every = f"; one layer in {shape.global_interval} sees everything" if shape.global_interval else ""
        rows.append(("window", f"{shape.window} tokens{every}"))
    if shape.moe:
        moe = shape.moe
        shared = f", {moe.num_shared_experts} shared of {moe.shared_expert_d_ff}" if moe.num_shared_experts else ""
        dense = f", first {moe.num_leading_dense_layers} layers dense" if moe.num_leading_dense_layers else ""
        experts = f"{moe.experts_per_token} of {moe.num_experts} of d_ff {moe.expert_d_ff}{shared}{dense}"
        rows.append(("experts", f"{experts}, {moe.router} router"))
    return rows


def _positions(shape: ModelShape) -> str:
    if shape.positions != "rope":
        return f"{shape.positions}" + (f", {shape.max_seq_len}" if shape.max_seq_len else "")
    stretched = f", {shape.rope.scaling} x{shape.rope.factor:g}" if shape.rope.scaling != "none" else ""
    return f"rope, theta {shape.rope.theta:g}{stretched}"
