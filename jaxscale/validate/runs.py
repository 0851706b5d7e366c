"""Read a table of measured training runs: each row becomes shape, workload, cluster, layout and what was measured.

The columns are those of published tables: model shape, hardware, batch, degrees, recompute, kernel, outcome.
A row that is incomplete, contradictory or absurd is refused with the field at fault; the others go on.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxscale.calibrate import Run
from jaxscale.calibrate.habits import HABITS
from jaxscale.catalog import chip_names, load_cluster, load_model, model_names
from jaxscale.errors import JaxscaleError, SpecError, nearest
from jaxscale.types import (
    Cluster,
    Layout,
    ModelShape,
    MoEShape,
    Workload,
    optimizer_named,
    precision_named,
)
from jaxscale.validate.recompute import with_likely_recompute
from jaxscale.validate.software import Framework, framework_of, pure_bf16, remat_of, software_of
from jaxscale.validate.words import hybrid_sharding, interleaved, network_named

REQUIRED = (
    "id", "hardware", "num_chips", "num_layers", "d_model", "num_q_heads", "num_kv_heads", "head_dim", "d_ff",
    "mlp_type", "seq_len", "global_batch_seqs", "tp", "pp", "recompute", "outcome", "step_time_s",
)  # fmt: skip
OUTCOMES = ("ok", "oom", "other_error")
DEFAULT_VOCABULARY = 51200  # GPT-2's, padded as Megatron pads it; used where a source states none
SIZES = ("num_layers", "d_model", "num_heads", "num_kv_heads", "d_ff", "mlp")  # that a preset must share with a row
EXPERT_SIZES = ("num_experts", "experts_per_token", "expert_d_ff", "num_shared_experts")
ZERO_STAGES = {0: ("none", "none", "none"), 1: ("none", "none", "fsdp"), 2: ("none", "fsdp", "fsdp"), 3: ("fsdp",) * 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A row that cannot be predicted, and why."""

    id: str
    group: str
    reason: str


def read_runs(path: str | Path) -> tuple[list[Run], list[Refusal]]:
    """Read every row of a CSV file; raise SpecError where the file as a whole cannot be used."""
    import pandas

    try:
        table = pandas.read_csv(path, low_memory=False, dtype={"id": str})
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as CSV: {error}") from None
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise SpecError(f"{path}: columns {', '.join(missing)} are missing")
    runs: list[Run] = []
    unstated: list[bool] = []
    refusals: list[Refusal] = []
    for number, row in enumerate(table.to_dict("records"), start=1):
        values = {str(k): v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))}
        values.setdefault("id", f"row {number}")
        try:
            runs.append(_run(values))
            unstated.append("recompute" not in values)
        except JaxscaleError as error:
            refusals.append(Refusal(id=str(values["id"]), group=str(values.get("group", "")), reason=str(error)))
    runs = with_likely_recompute(runs, unstated)
    if not runs:
        first = f"; the first: {refusals[0].reason}" if refusals else ""
        raise SpecError(f"{path}: no row can be used ({len(refusals)} refused{first})")
    return runs, refusals


def _run(row: Mapping[str, Any]) -> Run:
    framework = framework_of(row)
    shape = _shape(row)
    cluster = _cluster(row)
    layout = _layout(row, shape, framework)
    workload = _workload(row, framework)
    software = software_of(row, framework, cluster.chip.kind, workload.precision.matmul)
    if layout.num_devices != cluster.num_devices:
        raise SpecError(
            f"layout: dp x tp x pp x cp = {layout.num_devices} is not num_chips={cluster.num_chips} "
            f"x {cluster.chip.devices_per_chip} devices"
        )
    local = layout.batch_shards * layout.microbatch_size
    if workload.global_batch_size % local:
        raise SpecError(
            f"global_batch_seqs={workload.global_batch_size} is not divisible by dp x micro_batch_seqs = {local}"
        )
    if shape.num_heads % layout.tensor or layout.pipeline > shape.num_layers:
        raise SpecError(
            f"layout: tensor={layout.tensor} must divide num_q_heads={shape.num_heads}, and pipeline={layout.pipeline} "
            f"must be at most num_layers={shape.num_layers}"
        )
    outcome = str(row.get("outcome", "ok"))
    if outcome not in OUTCOMES:
        raise SpecError(f"outcome={outcome!r} is not one of {', '.join(OUTCOMES)}.{nearest(outcome, OUTCOMES)}")
    step_time_s = _number(row, "step_time_s")
    if outcome == "ok" and not 0 < step_time_s < math.inf:
        raise SpecError(f"step_time_s={step_time_s} must be a finite number above zero in a row whose outcome is ok")
    return Run(
        id=str(row["id"]),
        group=str(row.get("group", row.get("source", "all"))),
        family=str(row.get("family", row.get("group", "all"))),
        shape=shape,
        workload=workload,
        cluster=cluster,
        layout=layout,
        software=software,
        outcome=outcome,
        step_time_s=step_time_s,
        peak_memory_bytes=_peak_bytes(row),
        mfu_reported=_number(row, "mfu_reported"),
        mfu_note=str(row.get("mfu_definition_note", "")),
        weight=_weight(row),
        comparable=str(row.get("ablation_key", row.get("family", "all"))),
    )


def _whole(row: Mapping[str, Any], field: str, default: int | None = None) -> int:
    value = row.get(field, default)
    if value is None:
        raise SpecError(f"{field} is missing")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise SpecError(f"{field}={value!r} must be a whole number") from None
    if not (0 <= number < 2**53 and number == int(number)):
        raise SpecError(f"{field}={value!r} must be a whole number that is not negative")
    return int(number)


def _number(row: Mapping[str, Any], field: str) -> float:
    """A measured figure, NaN where the cell is empty."""
    value = row.get(field, math.nan)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise SpecError(f"{field}={value!r} must be a number") from None


def _weight(row: Mapping[str, Any]) -> float:
    weight = _number(row, "weight") if "weight" in row else 1.0
    if not 0 <= weight < math.inf:
        raise SpecError(f"weight={weight} must be a finite number that is not negative")
    return weight


def _word(row: Mapping[str, Any], field: str) -> str:
    if field not in row:
        raise SpecError(f"{field} is missing")
    return str(row[field])


def _peak_bytes(row: Mapping[str, Any]) -> float:
    gibibytes = _number(row, "peak_memory_gb")
    if not (math.isnan(gibibytes) or 0 < gibibytes < math.inf):
        raise SpecError(f"peak_memory_gb={gibibytes} must be a finite number above zero, or blank")
    return gibibytes * 2.0**30


TRUE, FALSE = ("true", "1", "1.0", "yes"), ("", "false", "0", "0.0", "no")


def _flag(row: Mapping[str, Any], field: str) -> bool:
    word = str(row.get(field, "")).strip().lower()
    if word not in (*TRUE, *FALSE):
        raise SpecError(f"{field}={row[field]!r} must be true or false, or blank")
    return word in TRUE


def _shape(row: Mapping[str, Any]) -> ModelShape:
    kind = _word(row, "mlp_type").lower()
    if kind not in ("swiglu", "geglu", "gelu", "relu"):
        raise SpecError(f"mlp_type={kind!r} is not one of swiglu, geglu, gelu, relu")
    gated = kind in ("swiglu", "geglu")
    experts = _whole(row, "num_experts", 0)
    moe = None
    if experts > 1:
        width = _whole(row, "expert_d_ff", _whole(row, "d_ff"))
        shared = _whole(row, "shared_experts", 0)
        moe = MoEShape(
            num_experts=experts, experts_per_token=_whole(row, "experts_per_token"), expert_d_ff=width,
            num_shared_experts=shared, shared_expert_d_ff=width if shared else 0,
        )  # fmt: skip
    said = ModelShape(
        name=str(row.get("model_name", "model")),
        num_layers=_whole(row, "num_layers"),
        d_model=_whole(row, "d_model"),
        num_heads=_whole(row, "num_q_heads"),
        num_kv_heads=_whole(row, "num_kv_heads"),
        head_dim=_whole(row, "head_dim"),
        d_ff=_whole(row, "d_ff"),
        vocab_size=_whole(row, "vocab_size", DEFAULT_VOCABULARY),
        mlp=kind,  # type: ignore[arg-type]
        tied_embeddings=_flag(row, "tied_embeddings") if "tied_embeddings" in row else not gated,
        moe=moe,
        norm="rmsnorm" if gated else "layernorm",
        norm_bias=not gated,
        qkv_bias=not gated,
        attention_out_bias=not gated,
        mlp_bias=not gated,
        positions="rope" if gated else "none",
    )
    return _known_model(said)


def _known_model(said: ModelShape) -> ModelShape:
    """A preset of the same name and sizes, where it has what the columns of a table cannot say.

    Latent attention, windows, norms of queries and keys, leading dense layers, routers.
    """
    if said.name not in model_names():
        return said
    known = load_model(said.name)
    more = known.mla or known.num_window_layers or known.moe or known.qk_norm != "none"
    if not more or any(getattr(known, size) != getattr(said, size) for size in SIZES):
        return said
    if said.moe and known.moe and any(getattr(known.moe, size) != getattr(said.moe, size) for size in EXPERT_SIZES):
        return said
    return dataclasses.replace(known, vocab_size=said.vocab_size, tied_embeddings=said.tied_embeddings)


def _cluster(row: Mapping[str, Any]) -> Cluster:
    hardware, chips = _hardware(_word(row, "hardware")), _whole(row, "num_chips")
    if hardware.startswith("tpu"):
        return _tpu_cluster(hardware.removeprefix("tpu-"), chips, str(row.get("variant", "")))
    node = min(_whole(row, "chips_per_node", 8), chips)
    if node < 1 or chips % node:
        raise SpecError(f"num_chips={chips} does not fill nodes of chips_per_node={node}")
    name = f"{hardware}:{node}x{chips // node}" if chips > node else f"{hardware}:{chips}"
    cluster = load_cluster(name)
    named = network_named(row)
    if len(cluster.tiers) == 1 or ("inter_node_gbps_per_chip" not in row and named is None):
        return cluster
    gigabits = named if "inter_node_gbps_per_chip" not in row else _number(row, "inter_node_gbps_per_chip")
    if not 0 < gigabits < math.inf:
        raise SpecError(f"inter_node_gbps_per_chip={gigabits} must be a finite number above zero")
    speed = gigabits * 1e9 / 8.0
    outer = dataclasses.replace(cluster.tiers[-1], bytes_per_s=speed)
    return dataclasses.replace(cluster, tiers=(*cluster.tiers[:-1], outer))


_MEMORY_SUFFIX = re.compile(r"-\d+gb$")


def _hardware(text: str) -> str:
    """The catalogue's name of a chip whose table name may also state its memory or its socket's generation."""
    name = text.strip().lower().replace("v100-sxm-", "v100-sxm2-")
    short = _MEMORY_SUFFIX.sub("", name)
    for candidate in (name, short, short.removesuffix("-sxm"), short.removesuffix("-nvl72")):
        if candidate in chip_names() or candidate.startswith("tpu"):
            return candidate
    raise SpecError(f"hardware={text!r} is not in the catalogue.{nearest(name, chip_names())}")


_SLICES = re.compile(r"(\d+) slice\(s\) of (\d+) chips")


def _tpu_cluster(generation: str, chips: int, variant: str) -> Cluster:
    match = _SLICES.search(variant)
    slices = int(match[1]) if match else 1
    if chips % slices:
        raise SpecError(f"num_chips={chips} does not split into {slices} slices")
    prefix = f"{slices}x" if slices > 1 else ""
    smallest = {"v5e": 4, "v6e": 4}.get(generation, 8)
    return load_cluster(f"{prefix}{generation}-{smallest}", num_chips=chips)


def _layout(row: Mapping[str, Any], shape: ModelShape, framework: Framework) -> Layout:
    tensor, pipeline = _whole(row, "tp", 1), _whole(row, "pp", 1)
    context, expert = _whole(row, "cp", 1), _whole(row, "ep", 1)
    for name, degree in (("tp", tensor), ("pp", pipeline), ("cp", context)):
        if degree < 1:
            raise SpecError(f"{name}={degree} must be at least 1, or blank")
    ranks = _whole(row, "dp", 0) or _whole(row, "num_chips") // (tensor * pipeline * context)
    # Megatron's expert axis may also span tensor- and context-parallel ranks. Where it does, experts are split over as
    # many batch ranks as there are, and each expert's matrices over the tensor axis: as large a share on each device.
    if expert > 1 and (shape.moe is None or shape.moe.num_experts % expert):
        experts = shape.moe.num_experts if shape.moe else 0
        raise SpecError(f"ep={expert} must divide num_experts={experts}")
    expert = math.gcd(expert, ranks)
    stage = _whole(row, "zero_stage", framework.zero_stage)
    if stage not in ZERO_STAGES:
        raise SpecError(f"zero_stage={stage} is not one of 0, 1, 2, 3")
    if stage == 3 and pipeline > 1 and framework.keeps_gathered:
        stage = 1
    replicas, shards = _replicas(row), ranks // expert
    data = replicas if shards % replicas == 0 else 1
    params, grads, optim = ZERO_STAGES[stage]
    virtual = _virtual_stages(row, shape, framework, pipeline)
    micro = _microbatch(row, framework, ranks, pipeline * virtual if pipeline > 1 else 1)
    split_sequence = _flag(row, "sp") if "sp" in row else framework.sequence_parallel
    return Layout(
        data=data, fsdp=shards // data, expert=expert, context=context, tensor=tensor, pipeline=pipeline,
        microbatch_size=micro, sequence_parallel=tensor > 1 and split_sequence,
        params_shard=params, grads_shard=grads, optimizer_shard=optim,  # type: ignore[arg-type]
        remat=remat_of(row, framework), schedule="interleaved" if virtual > 1 and pipeline > 1 else "1f1b",
        virtual_stages=virtual if pipeline > 1 else 1,
        context_method="all_gather" if framework.gathers_context else "ring",
    )  # fmt: skip


def _replicas(row: Mapping[str, Any]) -> int:
    """Replicas of a sharded model: one a slice, and one a node where a table says that sharding is hybrid."""
    match = _SLICES.search(str(row.get("variant", "")))
    if match:
        return int(match[1])
    nodes = _whole(row, "num_chips") // max(_whole(row, "chips_per_node", 8), 1)
    return max(nodes, 1) if hybrid_sharding(row) else 1


def _virtual_stages(row: Mapping[str, Any], shape: ModelShape, framework: Framework, pipeline: int) -> int:
    """Chunks of layers that each stage holds; 1 where the modules that a framework counts do not split evenly."""
    unstated = 2 if interleaved(row) else 1
    virtual = max(_whole(row, "virtual_pp", unstated), 1)
    habits = HABITS.get(framework.stack, {})
    modules = shape.num_layers + habits.get("modules_before", 0.0) + habits.get("modules_after", 0.0)
    return 1 if modules % (pipeline * virtual) else virtual


def _microbatch(row: Mapping[str, Any], framework: Framework, ranks: int, stages: int) -> int:
    """Sequences of a microbatch: stated, or by the framework's default for `stages` pipeline stages."""
    if row.get("micro_batch_seqs") == 0:
        raise SpecError("micro_batch_seqs=0 must be at least 1, or blank")
    batch, steps = _whole(row, "global_batch_seqs"), _whole(row, "grad_accum", 0)
    if not steps:
        steps = stages if framework.microbatch_a_stage and stages > 1 else 0
    micro = _whole(row, "micro_batch_seqs", 0) or (batch // (ranks * steps) if steps else 0)
    return micro or (1 if stages > 1 else max(batch // ranks, 1))


def _workload(row: Mapping[str, Any], framework: Framework) -> Workload:
    precision = str(row.get("precision", "bf16")).lower()
    if precision.startswith("fp8"):
        precision = "fp8"
    pure = precision == "bf16" and pure_bf16(row)
    optimizer = str(row.get("optimizer", "adamw")).lower()
    return Workload(
        seq_len=_whole(row, "seq_len"),
        global_batch_size=_whole(row, "global_batch_seqs"),
        precision=dataclasses.replace(
            precision_named("bf16_pure" if pure else precision),
            grad_bytes=2 if pure else framework.grad_bytes,
            reduce_bytes=framework.reduce_bytes,
        ),
        optimizer=optimizer_named("adamw" if "adam" in optimizer else optimizer),
        capacity_factor=1.0,
    )
