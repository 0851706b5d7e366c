"""Why a layout takes the time and memory it does, in sentences whose every number is computed."""

from collections.abc import Mapping, Sequence

from jaxscale.report.words import TIME_WORDS, largest_parts, short_layout
from jaxscale.types import Cluster, Estimate, Workload
from jaxscale.types.search import Change
from jaxscale.units import format_bytes, format_seconds

COMMUNICATION = ("tensor", "expert", "context", "fsdp", "data")
COMMUNICATION_GROUP = "communication (what is exposed, and compute slowed by what is hidden)"
MORE_THAN_HIDES = 1.2  # of the step without its communication: above that even the best overlap leaves some exposed
NUM_REASONS = 3
WORTH_A_WORD = 1e-3  # of the whole; smaller changes are not mentioned
MEMORY_WORDS = {
    "parameters": "parameters",
    "gradients": "accumulated gradients",
    "optimizer": "optimizer state",
    "activations": "saved activations",
    "working": "one layer's recomputed tensors and gradients",
    "logits": "logits and their gradient",
    "gathered weights": "weights gathered for the layers at work",
    "reserved": "what the runtime reserves",
}


def time_sentences(e: Estimate, workload: Workload, cluster: Cluster) -> tuple[str, ...]:
    """Where the step's time goes, and what bounds it."""
    peak = cluster.chip.peak(workload.precision.matmul) / cluster.chip.devices_per_chip
    ideal_s = e.model_flops / peak
    parts = ", ".join(
        f"{TIME_WORDS.get(name, name)} {format_seconds(seconds)} ({seconds / e.step_time_s:.0%})"
        for name, seconds in largest_parts(e.time_parts_s, share=0.01)
    )
    takes = "A step takes" if e.fits else "If there were memory for it (there is not, see below), a step would take"
    executed = f"; with all FLOPs that run counted, recomputed and padded ones too, HFU is {e.hfu:.1%}."
    return (
        f"{takes} {format_seconds(e.step_time_s)}: {parts}.",
        f"At the chip's peak the model's own FLOPs would take {format_seconds(ideal_s)}, so MFU is {e.mfu:.1%}"
        + (executed if e.hfu > e.mfu * 1.001 else "."),
        bound_sentence(e),
        _overlap_sentence(e),
    )


def _overlap_sentence(e: Estimate) -> str:
    """The bounds on either side; where there is more to send than compute to hide it behind, that too."""
    said = (
        f"If all communication hid behind compute it would be {format_seconds(e.lower_s)}, if none did "
        f"{format_seconds(e.upper_s)}"
    )
    without = e.step_time_s - time_groups(e.time_parts_s)[COMMUNICATION_GROUP]
    if e.lower_s > MORE_THAN_HIDES * without:
        return f"{said}: there is more to send than compute to hide it behind, so that overlap alone does not help."
    return f"{said}."


def bound_sentence(e: Estimate) -> str:
    """One sentence on what the step waits for most, beside the matrix multiplications themselves."""
    groups = time_groups(e.time_parts_s)
    name, seconds = max(groups.items(), key=lambda item: item[1])
    second = max((item for item in groups.items() if item[0] != name), key=lambda item: item[1])
    rest = f"; next comes {second[0]} with {format_seconds(second[1])}" if second[1] > 0.01 * e.step_time_s else ""
    return f"It is bound by {name}: {format_seconds(seconds)}, {seconds / e.step_time_s:.0%} of the step{rest}."


def time_groups(parts: Mapping[str, float]) -> dict[str, float]:
    """Time parts in groups by what would have to change."""
    get = parts.get
    return {
        "arithmetic (matrix multiplications, attention, recomputing)": get("matmul", 0.0)
        + get("attention", 0.0)
        + get("recompute", 0.0),
        "memory bandwidth (element-wise passes, the optimizer)": get("elementwise", 0.0) + get("optimizer", 0.0),
        COMMUNICATION_GROUP: sum(get(axis, 0.0) for axis in COMMUNICATION) + get("contention", 0.0),
        "the pipeline (bubble and sends)": get("pipeline", 0.0),
        "waiting (launches, stragglers, fixed overhead)": get("launch", 0.0)
        + get("stragglers", 0.0)
        + get("overhead", 0.0),
    }


def memory_sentences(e: Estimate) -> tuple[str, ...]:
    """Where the memory goes, and how much is left or lacking."""
    parts = ", ".join(
        f"{MEMORY_WORDS.get(name, name)} {format_bytes(size)}"
        for name, size in largest_parts(e.memory_parts_bytes, share=0.01)
    )
    left = e.memory_limit_bytes - e.memory_bytes
    verdict = f"{format_bytes(left)} stay free" if e.fits else f"{format_bytes(-left)} too much: it does not fit"
    used, limit = format_bytes(e.memory_bytes), format_bytes(e.memory_limit_bytes)
    first = f"At the peak a device holds {used} of {limit} ({verdict}): {parts}."
    if not e.host_memory_bytes:
        return (first,)
    return first, f"Another {format_bytes(e.host_memory_bytes)} per device wait in host memory."


def communication_sentence(e: Estimate) -> str:
    """What one device sends, by axis."""
    if not e.comm_bytes:
        return "Nothing is sent between devices."
    sent = ", ".join(f"{format_bytes(size)} over {axes}" for axes, size in largest_parts(e.comm_bytes, share=0.001))
    return f"In a step one device sends {sent}."


def improvements(e: Estimate, changes: Sequence[Change], count: int = 3) -> tuple[Change, ...]:
    """The best single changes that fit, one of each kind, best first.

    Of a layout that does not fit: the fastest changes after which it does.
    """
    limit_s = e.step_time_s * (1.0 - WORTH_A_WORD) if e.fits else float("inf")
    chosen: dict[str, Change] = {}
    for change in changes:  # fastest first
        if change.estimate.fits and change.estimate.step_time_s < limit_s:
            chosen.setdefault(change.kind, change)
    return tuple(list(chosen.values())[:count])


def gain_sentences(e: Estimate, changes: Sequence[Change]) -> tuple[str, ...]:
    """What the best single changes gain; where none helps, the one that comes nearest to fitting."""
    better = improvements(e, changes)
    if better:
        return tuple(change_sentence(e, change) for change in better)
    if e.fits or not changes:
        return ("None helps.",)
    smallest = min(changes, key=lambda change: change.estimate.memory_bytes)
    return (
        f"No single change makes it fit. {smallest.what} comes nearest: "
        f"{format_bytes(smallest.estimate.memory_bytes)} of {format_bytes(e.memory_limit_bytes)} a device.",
    )


def change_sentence(e: Estimate, change: Change) -> str:
    """What a change gains or costs, and in which parts."""
    after = change.estimate
    gain = e.step_time_s - after.step_time_s
    direction = "saves" if gain > 0 else "costs"
    memory = after.memory_bytes - e.memory_bytes
    reasons = _reasons(e.time_parts_s, after.time_parts_s, TIME_WORDS, format_seconds)
    return (
        f"{change.what}: {format_seconds(after.step_time_s)} a step, {direction} {format_seconds(abs(gain))} "
        f"({abs(gain) / e.step_time_s:.1%}); {reasons}. "
        f"Memory {format_bytes(after.memory_bytes)} ({_signed(memory, format_bytes)})."
    )


def difference_sentences(e: Estimate, other: Estimate) -> tuple[str, ...]:
    """Why `other` is slower or faster than `e`, and needs more or less memory."""
    slower = other.step_time_s - e.step_time_s
    word = "slower" if slower > 0 else "faster"
    memory = other.memory_bytes - e.memory_bytes
    sentences = [
        f"{short_layout(other.layout)} takes {format_seconds(other.step_time_s)} a step, {format_seconds(abs(slower))} "
        f"({abs(slower) / e.step_time_s:.1%}) {word}: "
        f"{_reasons(e.time_parts_s, other.time_parts_s, TIME_WORDS, format_seconds)}.",
        f"It needs {format_bytes(other.memory_bytes)} per device ({_signed(memory, format_bytes)}): "
        f"{_reasons(e.memory_parts_bytes, other.memory_parts_bytes, MEMORY_WORDS, format_bytes)}.",
    ]
    if not other.fits:
        sentences.append(f"It does not fit: {format_bytes(other.memory_bytes - other.memory_limit_bytes)} too much.")
    sent, before = sum(other.comm_bytes.values()), sum(e.comm_bytes.values())
    if abs(sent - before) > WORTH_A_WORD * before:
        change = f"{format_bytes(abs(sent - before))} {'more' if sent > before else 'less'}"
        sentences.append(f"One device sends {format_bytes(sent)} a step, {change} than {format_bytes(before)}.")
    return tuple(sentences)


def _reasons(before: Mapping[str, float], after: Mapping[str, float], words: Mapping[str, str], form) -> str:
    """The parts that change most, each with its sign."""
    deltas = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in {*before, *after}}
    scale = max(sum(before.values()), 1e-30)
    largest = sorted(deltas.items(), key=lambda item: (-abs(item[1]), item[0]))[:NUM_REASONS]
    said = [
        f"{words.get(name, name)} {_signed(delta, form)}"
        for name, delta in largest
        if abs(delta) > WORTH_A_WORD * scale
    ]
    return ", ".join(said) or "no part changes by a thousandth of the whole"


def _signed(value: float, form) -> str:
    return f"{'+' if value >= 0 else '-'}{form(abs(value))}"


def illegal_sentences(broken: Sequence[str], nearest: Sequence[Estimate]) -> tuple[str, ...]:
    """Why a layout cannot run, and the legal layouts that differ least from it."""
    said = [f"It cannot run: {reason}." for reason in broken]
    if not nearest:
        return (*said, "No layout of this model and batch can run on these devices.")
    said.append("The nearest that can, fastest first:")
    for e in nearest:
        verdict = "" if e.fits else ", but does not fit in memory"
        said.append(f"{short_layout(e.layout)}: {format_seconds(e.step_time_s)} a step{verdict}")
    return tuple(said)
