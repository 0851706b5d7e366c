"""Probe samples -> a cluster whose predictions give back the measured rates.

The cost model multiplies a chip's figures by the shares of its software stack. So each figure is the measured rate over
that share: a predicted matmul, pass over memory or collective then takes the time that it took here.

| figure | from |
|---|---|
| peak FLOP/s of a format | matmuls, over `matmul_efficiency` k / (k + `matmul_k_half`) |
| HBM bytes/s | passes over arrays larger than the caches, over `memory_efficiency` |
| link bytes/s and latency of a hop | t = start + rounds (n-1) hop + wire bytes / bandwidth, all collectives together |
| memory that emulated devices share | t = start + n latency + passes payload / bandwidth, the same way |
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from jaxscale.errors import MeasurementError
from jaxscale.measure.probe import COLLECTIVES
from jaxscale.types import SHARED_MEMORY_PASSES, Chip, Cluster, Stack, Tier
from jaxscale.types.measurement import ProbeResult, ProbeSample

FORMATS = {"float32": "fp32", "bfloat16": "bf16"}  # array type -> matmul format of a chip


def fit_cluster(base: Cluster, probe: ProbeResult, stack: Stack) -> Cluster:
    """The cluster `base` with what was measured in place of its figures.

    A torus keeps its links' figures: its dims work at once, which the probe's groups do not tell apart.
    """
    if len(base.tiers) != 1:
        raise MeasurementError(f"probe: cluster {base.name!r} spans {len(base.tiers)} networks; name one node or slice")
    tier = base.tiers[0]
    collectives = [sample for sample in probe.samples if sample.what in COLLECTIVES]
    if tier.kind != "torus" and collectives:
        tier = _fit_tier(tier, collectives, stack)
    return dataclasses.replace(
        base,
        name=f"{base.name}-probed",
        chip=_fit_chip(base.chip, probe, stack),
        tiers=(tier,),
        note=_note(base, probe, stack, links=tier is not base.tiers[0]),
    )


def _fit_chip(chip: Chip, probe: ProbeResult, stack: Stack) -> Chip:
    """Figures of a whole chip; samples are of one device."""
    per_chip = float(chip.devices_per_chip)
    peaks, samples = dict(chip.peak_flops_per_s), probe.samples
    for dtype, name in FORMATS.items():
        matmuls = [sample for sample in samples if sample.what == "matmul" and sample.dtype == dtype]
        if matmuls:
            peaks[name] = _rounded(per_chip * _peak_flops_per_s(matmuls, stack))
    stream = _rate(samples, "copy", lambda sample: sample.payload_bytes) / stack.memory_efficiency
    memory_bytes = per_chip * probe.memory_bytes
    return dataclasses.replace(
        chip,
        peak_flops_per_s=peaks,
        vector_flops_per_s=_rounded(per_chip * _rate(samples, "vector", lambda sample: sample.flops)),
        hbm_bytes_per_s=_rounded(per_chip * stream),
        host_bytes_per_s=_rounded(per_chip * _rate(samples, "host_copy", lambda sample: sample.payload_bytes)),
        hbm_bytes=memory_bytes if chip.kind == "cpu" else max(chip.hbm_bytes, memory_bytes),
        usable_hbm_bytes=memory_bytes,
        source=f"jaxscale probe of {probe.device_kind}, {probe.started_at}",
    )


def _peak_flops_per_s(matmuls: Iterable[ProbeSample], stack: Stack) -> float:
    """The geometric mean over shapes of the peak that each implies."""

    def implied(sample: ProbeSample) -> float:
        k = sample.sizes[1]
        share = stack.matmul_efficiency * k / (k + stack.matmul_k_half)
        return sample.flops / sample.seconds / share

    return statistics.geometric_mean(map(implied, matmuls))


def _rate(samples: Iterable[ProbeSample], what: str, amount: Callable[[ProbeSample], float]) -> float:
    """Amount a second at the largest size: the one least likely to fit in a cache."""
    found = [sample for sample in samples if sample.what == what]
    if not found:
        raise MeasurementError(f"probe: no sample of {what}")
    largest = max(found, key=lambda sample: sample.sizes)
    return amount(largest) / largest.seconds


def _rounded(figure: float) -> float:
    """Four digits: more than a microbenchmark knows."""
    return float(f"{figure:.4g}")


def wire_bytes(sample: ProbeSample) -> float:
    """Bytes that one device sends in a collective by the ring algorithms (Thakur et al. 2005)."""
    if sample.what == "collective-permute":
        return sample.payload_bytes
    return _rounds(sample) * sample.payload_bytes * (sample.group_size - 1) / sample.group_size


def _rounds(sample: ProbeSample) -> float:
    return 2.0 if sample.what == "all-reduce" else 1.0


def _hops(sample: ProbeSample) -> float:
    """Hops one after the other: around the group, or to the neighbour."""
    return 1.0 if sample.what == "collective-permute" else _rounds(sample) * (sample.group_size - 1)


def _wired(sample: ProbeSample) -> tuple[float, float]:
    """Hops and bytes of one device in a collective over links."""
    return _hops(sample), wire_bytes(sample)


def _shared(sample: ProbeSample, tier: Tier) -> tuple[float, float]:
    """Devices that are waited for, and bytes that one device passes over, where all share one memory."""
    met = tier.size if sample.what == "collective-permute" else sample.group_size
    return float(met), SHARED_MEMORY_PASSES[sample.what] * sample.payload_bytes


def _fit_tier(tier: Tier, collectives: Sequence[ProbeSample], stack: Stack) -> Tier:
    """Bandwidth and hop latency by least squares of relative errors, neither below zero."""
    from scipy.optimize import nnls  # half a second to load, which every sweep's worker would spend

    seconds = np.array([sample.seconds for sample in collectives])
    rows = [_shared(sample, tier) if tier.kind == "memory" else _wired(sample) for sample in collectives]
    design = np.array(rows)  # [samples, 2]
    beyond_start = np.maximum(seconds - stack.collective_latency_s, 0.0)
    scale = np.abs(design).max(axis=0)
    (hop_s, s_per_byte), _ = nnls(design / scale / seconds[:, None], beyond_start / seconds)
    hop_s, s_per_byte = hop_s / scale[0], s_per_byte / scale[1]
    if not s_per_byte:  # every payload was so small that only latency shows: what was reached is a lower bound
        s_per_byte = min(sample.seconds / row[1] for sample, row in zip(collectives, rows, strict=True))
    bytes_per_s = 1.0 / (s_per_byte * stack.collective_efficiency)
    return dataclasses.replace(tier, bytes_per_s=_rounded(bytes_per_s), latency_s=_rounded(hop_s))


def _note(base: Cluster, probe: ProbeResult, stack: Stack, *, links: bool) -> str:
    words = f"measured by jaxscale probe, fitted to the constants of {stack.name}"
    if probe.surroundings:
        s = probe.surroundings
        words += f"; {s.num_cores} cores at load {s.load_before:.1f} to {s.load_after:.1f}"
    return words if links else f"{words}; links as in {base.name}"
