"""The fit gives back the rates that the samples were made with: the cost model's own formulas are the oracle."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.catalog import load_cluster
from jaxscale.catalog.clusters import cluster_from_mapping
from jaxscale.catalog.strict import parse_yaml
from jaxscale.cli.probe import to_yaml
from jaxscale.cost import problem
from jaxscale.cost.compute import matmul_s
from jaxscale.cost.network import cluster_levels, collective_s, derate
from jaxscale.errors import MeasurementError, SpecError
from jaxscale.measure import fit_cluster
from jaxscale.measure.probe import COLLECTIVES
from jaxscale.types import Cluster, Workload, default_stack, precision_named
from jaxscale.types.measurement import ProbeResult, ProbeSample
from tests.measure.requests import request

STACK = default_stack("cpu")
SHAPES = ((512, 256), (1024, 512))
PAYLOADS = (2**12, 2**16, 2**20, 2**24)


def samples_of(cluster: Cluster) -> tuple[ProbeSample, ...]:
    """What a probe of `cluster` would see if the cost model were the truth."""
    [level] = derate(cluster_levels(cluster), STACK.collective_efficiency, STACK.outer_efficiency, 0.0)
    collectives = [
        ProbeSample(
            what=kind, dtype="float32", group_size=size, payload_bytes=float(payload),
            seconds=float(
                collective_s(kind, payload, [size], [level], latency_s=STACK.collective_latency_s, xp=np)
            ),
        )
        for kind in COLLECTIVES
        for size in (2, 4, 8)
        for payload in PAYLOADS
    ]  # fmt: skip
    chip = cluster.chip
    memory_s = 2**20 / (chip.hbm_bytes_per_s * STACK.memory_efficiency)
    return (
        *(matmul(cluster, m, k, dtype, precision) for m, k in SHAPES for dtype, precision in FORMATS.items()),
        ProbeSample(what="copy", dtype="float32", seconds=memory_s, sizes=(2**17,), payload_bytes=2.0**20),
        ProbeSample(what="vector", dtype="float32", seconds=1.0 / chip.vector_flops_per_s, sizes=(1,), flops=1.0),
        ProbeSample(
            what="host_copy", dtype="float32", seconds=1.0 / chip.host_bytes_per_s, sizes=(1,), payload_bytes=1.0
        ),
        *collectives,
    )


FORMATS = {"float32": "fp32", "bfloat16": "bf16"}


def matmul(cluster: Cluster, m: int, k: int, dtype: str, precision: str) -> ProbeSample:
    workload = Workload(seq_len=1, global_batch_size=1, precision=precision_named(precision))
    p = problem(request().shape, workload, cluster, STACK)
    seconds = float(matmul_s(p, 1.0, float(m), float(k), float(k)))
    return ProbeSample(what="matmul", dtype=dtype, seconds=seconds, sizes=(m, k, k), flops=2.0 * m * k * k)


def probe_of(cluster: Cluster) -> ProbeResult:
    return ProbeResult(
        samples=samples_of(cluster), device_kind="cpu", num_devices=8, memory_bytes=2.0**30, started_at="2026-01-01"
    )


rates = st.floats(1e9, 1e12)


@settings(deadline=None, max_examples=30)
@given(peak=rates, vector=rates, memory=st.floats(1e11, 1e12), link=rates, hop_s=st.floats(1e-6, 1e-4))
def test_the_fit_finds_the_figures_that_made_the_samples(
    peak: float, vector: float, memory: float, link: float, hop_s: float
) -> None:
    base = load_cluster("cpu:8")
    truth = dataclasses.replace(
        base,
        chip=dataclasses.replace(
            base.chip, peak_flops_per_s={"bf16": peak, "fp32": peak}, vector_flops_per_s=vector, hbm_bytes_per_s=memory
        ),
        tiers=(dataclasses.replace(base.tiers[0], bytes_per_s=link, latency_s=hop_s),),
    )
    fitted = fit_cluster(base, probe_of(truth), STACK)
    assert fitted.chip.peak("bf16") == pytest.approx(peak, rel=1e-3)
    assert fitted.chip.vector_flops_per_s == pytest.approx(vector, rel=1e-3)
    assert fitted.chip.hbm_bytes_per_s == pytest.approx(memory, rel=1e-3)
    assert fitted.tiers[0].bytes_per_s == pytest.approx(link, rel=1e-2)
    assert fitted.tiers[0].latency_s == pytest.approx(hop_s, rel=1e-2)
    assert fitted.chip.usable_hbm_bytes == 2.0**30


def test_the_file_reads_back_as_the_same_cluster() -> None:
    fitted = fit_cluster(load_cluster("cpu:8"), probe_of(load_cluster("cpu:8")), STACK)
    assert cluster_from_mapping(parse_yaml(to_yaml(fitted), where="file"), where="file") == fitted


def test_a_file_with_its_own_stack_reads_back() -> None:
    fitted = fit_cluster(load_cluster("cpu:8"), probe_of(load_cluster("cpu:8")), STACK)
    own = dataclasses.replace(STACK, kernel_gap_s=2.5e-5, saved_passes=3.0, sigma_log=0.07, source="jaxscale probe")
    fitted = dataclasses.replace(fitted, stack=own)
    text = to_yaml(fitted)
    assert "kernel_gap_s: 2.5e-05 s" in text
    assert cluster_from_mapping(parse_yaml(text, where="file"), where="file") == fitted
    with pytest.raises(SpecError, match="kernel_gap_s"):
        cluster_from_mapping(parse_yaml(text.replace("2.5e-05 s", "0.000025"), where="file"), where="file")
    with pytest.raises(SpecError, match="saved_pases"):
        cluster_from_mapping(parse_yaml(text.replace("saved_passes", "saved_pases"), where="file"), where="file")


def test_a_torus_keeps_its_links() -> None:
    base = load_cluster("v5e-8")
    fitted = fit_cluster(base, probe_of(load_cluster("cpu:8")), STACK)
    assert fitted.tiers == base.tiers
    assert "links as in v5e-8" in fitted.note


def test_one_node_at_a_time() -> None:
    with pytest.raises(MeasurementError, match="spans 2 networks"):
        fit_cluster(load_cluster("h100-sxm:16"), probe_of(load_cluster("cpu:8")), STACK)
