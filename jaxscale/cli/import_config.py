"""`jaxscale import`: another framework's configuration as a run spec, which stands for all flags of any verb."""

import dataclasses
from pathlib import Path
from typing import Any

import click
import yaml

from jaxscale.catalog import load_cluster, load_model
from jaxscale.cli.common import check_writable, json_option, print_json, write_atomically
from jaxscale.errors import SpecError
from jaxscale.export import Imported, read_deepspeed, read_maxtext, read_megatron
from jaxscale.types import Cluster, ModelShape, Workload
from jaxscale.types._check import as_dict

SOURCES = ("maxtext", "megatron", "deepspeed")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "source", type=click.Choice(SOURCES), required=True, help="The framework that FILE is for.")
@click.option("--cluster", "where", required=True, metavar="C", help="v5p-64, h100-sxm:64, cpu:8 or a YAML file.")
@click.option("--model", metavar="M", help="The model, where FILE does not describe it.")
@click.option("--seq-len", type=click.IntRange(1), metavar="S", help="Tokens of one sequence; for deepspeed.")
@click.option("--out", type=click.Path(path_type=Path), metavar="SPEC", help="Write here instead of to stdout.")
@json_option
def command(
    file: Path, source: str, where: str, model: str | None, seq_len: int | None, out: Path | None, as_json: bool
) -> None:
    """Read another framework's configuration as a run spec.

    \b
    jaxscale export llama3-8b --cluster v5p-64 --seq-len 8192 \\
        --global-batch-size 128 --layout "fsdp=32" --to maxtext --out m.yml
    jaxscale import m.yml --from maxtext --cluster v5p-64 --out run.yaml
    jaxscale predict run.yaml

    FILE is a MaxText YAML, the arguments of Megatron-LM's pretrain_gpt.py, or a DeepSpeed JSON. What is not understood
    is said on stderr. The run spec takes the place of MODEL and all flags in predict, explain, compile and the others.
    """
    if out is not None:
        check_writable(out)
    cluster = load_cluster(where)
    found = _read(file, source, cluster, seq_len)
    shape = load_model(model) if model is not None else found.shape
    if shape is None:
        raise SpecError(f"{file}: does not describe the model; name it with --model, such as --model llama3-8b")
    spec = {"model": _shape(shape, model), "workload": _workload(found.workload), "cluster": where}
    spec["layout"] = str(found.layout)
    text = yaml.safe_dump(spec, sort_keys=False, width=120, default_flow_style=None)
    if out is not None:
        write_atomically(out, text)
    if as_json:
        print_json({"spec": spec, "notes": found.notes})
        return
    if out is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"written: {out}", err=True)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)


def _read(file: Path, source: str, cluster: Cluster, seq_len: int | None) -> Imported:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SpecError(f"{file}: cannot be read: {reason}") from error
    name = file.stem
    if source == "maxtext":
        groups = max(cluster.num_chips // cluster.tiers[0].size, 1)
        return read_maxtext(text, num_devices=cluster.num_devices, num_slices=groups, name=name)
    if source == "megatron":
        return read_megatron(text, num_devices=cluster.num_devices, name=name)
    if seq_len is None:
        raise SpecError("--seq-len is missing: DeepSpeed's JSON does not say it; write it like --seq-len 8192")
    return read_deepspeed(text, num_devices=cluster.num_devices, seq_len=seq_len)


def _shape(shape: ModelShape, model: str | None) -> str | dict[str, Any]:
    """The name that was given, or the fields that differ from their defaults."""
    return model if model is not None else _changed(shape)


def _changed(value: Any) -> dict[str, Any]:
    """Fields of a dataclass that are not at their default, as plain values."""
    plain = as_dict(value)
    kept = {}
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if own != default:
            kept[field.name] = _changed(own) if dataclasses.is_dataclass(own) else plain[field.name]
    return kept


def _workload(workload: Workload) -> dict[str, Any]:
    named = {"precision": workload.precision.name, "optimizer": workload.optimizer.name}
    sizes = {"seq_len": workload.seq_len, "global_batch_size": workload.global_batch_size}
    return sizes | named | {"capacity_factor": workload.capacity_factor}
