"""Layouts and estimates in plain words with numbers."""

from jaxscale.types import AXES, Cluster, Estimate, Layout, Workload, remat_policy
from jaxscale.types.layout import ZERO_STAGES
from jaxscale.units import format_bytes, format_seconds

REMAT_WORDS = {
    "none": "every activation is kept for the backward pass",
    "dots": "results of matmuls are kept, element-wise ones recomputed",
    "attention": "attention's inputs and output are kept, the rest of a layer is recomputed",
    "flash": "attention's output is kept, the rest of a layer is recomputed",
    "full": "only a layer's input is kept, the whole layer is recomputed in the backward pass",
    "offload_attention": "attention's inputs and output wait in host memory, the rest of a layer is recomputed",
    "offload_inputs": "layer inputs wait in host memory, whole layers are recomputed in the backward pass",
}
TIME_WORDS = {
    "matmul": "matrix multiplications",
    "attention": "attention",
    "elementwise": "element-wise work",
    "recompute": "recomputing activations",
    "tensor": "exposed tensor-parallel communication",
    "expert": "exposed expert all-to-alls",
    "context": "exposed context-parallel communication",
    "fsdp": "exposed FSDP communication",
    "host": "exposed copies to and from host memory",
    "data": "exposed gradient reduction over data",
    "contention": "compute slowed by hidden communication",
    "pipeline": "pipeline bubble and sends",
    "optimizer": "the optimizer",
    "overhead": "fixed overhead",
    "launch": "waiting for the host to launch kernels",
    "stragglers": "waiting for the slowest device",
}
ZERO_WORDS = {
    "0": "Parameters, gradients and optimizer state are whole on every device",
    "1": "The optimizer state is split (ZeRO-1); parameters and gradients are whole",
    "2": "Gradients and optimizer state are split (ZeRO-2); parameters are whole",
    "3": "Parameters, gradients and optimizer state are all split (ZeRO-3)",
}

RULE_WORDS = {
    "batch": "batch shards do not divide the batch",
    "tensor": "tensor does not divide heads or widths",
    "expert": "expert does not divide the experts",
    "context": "context does not divide the sequence",
    "sequence_parallel": "tensor does not divide the sequence",
    "pipeline": "more pipeline stages than layers",
    "virtual_stages": "virtual stages need interleaving",
    "microbatches": "microbatches do not fill interleaved stages",
}


def zero_stage(layout: Layout) -> str | None:
    """The ZeRO stage that the three shard options come to; None where they are mixed or reach over data."""
    shards = (layout.params_shard, layout.grads_shard, layout.optimizer_shard)
    return next((stage for stage, triple in ZERO_STAGES.items() if triple == shards), None)


def short_layout(layout: Layout) -> str:
    """Write a layout as `--layout` reads it, short enough for a table.

    >>> short_layout(Layout(fsdp=16, tensor=4, sequence_parallel=True, params_shard="none"))
    'fsdp=16, tensor=4, sp=true, zero=2, microbatch=1, remat=full'
    """
    parts = [f"{axis}={getattr(layout, axis)}" for axis in AXES if getattr(layout, axis) > 1]
    if layout.sequence_parallel:
        parts.append("sp=true")
    stage = zero_stage(layout)
    if stage is None:
        fields = {"params_shard": layout.params_shard, "grads_shard": layout.grads_shard}
        parts += [f"{name}={shard}" for name, shard in fields.items() if shard != "fsdp"]
        parts.append(f"optimizer_shard={layout.optimizer_shard}")
    elif stage != "3":
        parts.append(f"zero={stage}")
    parts += [f"microbatch={layout.microbatch_size}", f"remat={layout.remat}"]
    if layout.pipeline > 1 or layout.schedule == "layered":
        parts.append(f"schedule={layout.schedule}")
    if layout.virtual_stages > 1:
        parts.append(f"virtual_stages={layout.virtual_stages}")
    if layout.context > 1:
        parts.append(f"context_method={layout.context_method}")
    if layout.offload_optimizer:
        parts.append("offload_optimizer=true")
    default_order = Layout.__dataclass_fields__["axis_order"].default
    if layout.axis_order != default_order:
        parts.append(f"axis_order={'/'.join(layout.axis_order)}")
    return ", ".join(parts)


def layout_sentences(layout: Layout, workload: Workload, cluster: Cluster) -> tuple[str, ...]:
    """Tell what a layout does with the batch, the weights, the layers and the activations."""
    return (
        _batch_sentence(layout, workload, cluster),
        *_axis_sentences(layout, workload),
        _zero_sentence(layout),
        f"Remat {layout.remat}: {remat_words(layout.remat)}.",
        *(("Optimizer state waits in host memory between steps.",) if layout.offload_optimizer else ()),
    )


def remat_words(remat: str) -> str:
    """What a named policy, or one of the layout's own, keeps for the backward pass."""
    if remat in REMAT_WORDS:
        return REMAT_WORDS[remat]
    policy = remat_policy(remat)
    host = sorted(policy.offloaded) + ["the layer's input"] * policy.offload_layer_input
    kept = f"{', '.join(sorted(policy.saved))} kept" if policy.saved else "nothing kept on the device"
    on_host = f", {', '.join(host)} in host memory" if host else ""
    return f"{kept}{on_host}, the rest computed again"


def _batch_sentence(layout: Layout, workload: Workload, cluster: Cluster) -> str:
    batch, shards = workload.global_batch_size, layout.batch_shards
    axes = " x ".join(f"{axis}={getattr(layout, axis)}" for axis in AXES[:3] if getattr(layout, axis) > 1)
    microbatches = layout.num_microbatches(batch)
    each = plural(layout.microbatch_size, "sequence")
    rounds = f"in {microbatches} microbatches of {each}" if microbatches > 1 else f"in one microbatch of {each}"
    if shards == 1:
        return f"All {cluster.num_devices} devices work on the same {plural(batch, 'sequence')} of a step, {rounds}."
    return (
        f"The {batch} sequences of a step are split over {shards} groups ({axes}); each runs its "
        f"{batch // shards} {rounds}."
    )


def _axis_sentences(layout: Layout, workload: Workload) -> list[str]:
    sentences = []
    if layout.tensor > 1:
        residual = " and, in between, the residual stream's sequence" if layout.sequence_parallel else ""
        sentences.append(f"Attention heads, MLP width and vocabulary are split over tensor={layout.tensor}{residual}.")
    if layout.context > 1:
        how = (
            "keys and values travel round a ring" if layout.context_method == "ring" else "keys and values are gathered"
        )
        part = workload.seq_len // layout.context
        sentences.append(f"Each sequence is cut into {part}-token parts over context={layout.context}; {how}.")
    if layout.expert > 1:
        sentences.append(f"Experts are split over expert={layout.expert}; tokens reach theirs by all-to-all.")
    if layout.pipeline > 1:
        chunks = f", {layout.virtual_stages} chunks of layers a stage" if layout.virtual_stages > 1 else ""
        sentences.append(
            f"Layers are split over {layout.pipeline} pipeline stages, run by the {layout.schedule} schedule{chunks}."
        )
    if layout.schedule == "layered":
        part = "chunk" if layout.pipeline > 1 else "layer"
        sentences.append(
            f"All microbatches pass a {part} before the next one starts, so that its weights are gathered once a pass."
        )
    return sentences


def _zero_sentence(layout: Layout) -> str:
    stage = zero_stage(layout)
    if stage is not None:
        replicas = f", with data={layout.data} replicas of that (HSDP)" if layout.data > 1 and stage != "0" else ""
        return f"{ZERO_WORDS[stage]}{replicas}."
    words = {"none": "whole", "fsdp": "split over the ZeRO group", "data": "split over the ZeRO group and data"}
    parts = [
        ("Parameters", layout.params_shard),
        ("gradients", layout.grads_shard),
        ("optimizer state", layout.optimizer_shard),
    ]
    return ", ".join(f"{name} {words[shard]}" for name, shard in parts) + "."


def plural(count: int, noun: str) -> str:
    """Write a count with its noun.

    >>> plural(1, "chip"), plural(3, "chip"), plural(2, "mesh")
    ('1 chip', '3 chips', '2 meshes')
    """
    ending = "" if count == 1 else "es" if noun.endswith("sh") else "s"
    return f"{count} {noun}{ending}"


def headline(estimate: Estimate, model: str, cluster: Cluster) -> str:
    """The answer in one sentence."""
    money = ""
    if estimate.dollars_per_billion_tokens:
        money = f" and ${estimate.dollars_per_billion_tokens:,.0f} per billion tokens"
    chips = plural(cluster.num_chips, "chip")
    return (
        f"{model} on {cluster.name} ({chips}): {format_seconds(estimate.step_time_s)} a step, "
        f"{estimate.tokens_per_s_per_chip:,.0f} tokens/s per chip, {estimate.mfu:.1%} MFU{money}, "
        f"with {format_bytes(estimate.memory_bytes)} of {format_bytes(estimate.memory_limit_bytes)} memory per device."
    )


def largest_parts(parts: dict[str, float], *, share: float = 0.005) -> list[tuple[str, float]]:
    """Parts of a total in falling order, without those below `share` of it."""
    total = sum(parts.values())
    return sorted(((k, v) for k, v in parts.items() if v > share * total), key=lambda item: -item[1])
