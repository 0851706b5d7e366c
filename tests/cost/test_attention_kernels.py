"""Kernels of a stack: conversion to fp8, head widths, logits in bf16, power limits, and a cluster's pace."""

import dataclasses

import pytest

from jaxscale.catalog import load_chip, load_cluster
from jaxscale.cost import estimate
from jaxscale.types import ModelShape, Stack, Workload, default_stack, parse_layout, precision_named

EAGER = dataclasses.replace(default_stack("gpu"), name="eager", spmd=False)
SHAPE = ModelShape(
    name="llama", num_layers=16, d_model=4096, num_heads=32, num_kv_heads=8, head_dim=128, d_ff=14336,
    vocab_size=128256, mlp="swiglu",
)  # fmt: skip


def step(
    stack: Stack = EAGER, *, precision: str = "bf16", shape: ModelShape = SHAPE, chip: str = "h100-sxm", seq_len=8192
):
    workload = Workload(seq_len=seq_len, global_batch_size=8, precision=precision_named(precision))
    return estimate(shape, workload, load_cluster(f"{chip}:8"), parse_layout("fsdp=8,remat=none"), stack)


def test_an_input_is_converted_once_for_the_matmuls_that_read_it() -> None:
    """Bytes of four inputs and seven output gradients of a gated layer, by the constant's definition."""
    base, casting = step(precision="fp8"), step(dataclasses.replace(EAGER, cast_passes=2.0), precision="fp8")
    s, tokens = SHAPE, 8192
    inputs = s.d_model + s.num_heads * s.head_dim + s.d_model + s.d_ff
    gradients = (s.num_heads + 2 * s.num_kv_heads) * s.head_dim + s.d_model + 2 * s.d_ff + s.d_model
    bytes_ = 2.0 * 2 * tokens * (inputs + gradients) * s.num_layers
    chip = load_chip("h100-sxm")
    expected_s = bytes_ / (chip.hbm_bytes_per_s * EAGER.memory_efficiency)
    assert casting.step_time_s - base.step_time_s == pytest.approx(expected_s, rel=0.02)  # and stragglers


def test_logits_stay_in_bf16() -> None:
    """Twice the rate everywhere else: a larger vocabulary costs as much in fp8 as in bf16."""
    wide = dataclasses.replace(SHAPE, vocab_size=2 * SHAPE.vocab_size)
    grown = [step(precision=p, shape=wide).step_time_s - step(precision=p).step_time_s for p in ("bf16", "fp8")]
    assert grown[1] == pytest.approx(grown[0], rel=0.05)


@pytest.mark.parametrize(("head_dim", "slower"), [(64, True), (128, False)])
def test_narrow_heads_by_the_width_at_which_a_kernel_is_half_as_fast(head_dim: int, slower: bool) -> None:
    shape = dataclasses.replace(SHAPE, num_heads=4096 // head_dim, num_kv_heads=4096 // head_dim, head_dim=head_dim)
    few, many = (
        step(dataclasses.replace(EAGER, attention_head_half=half), shape=shape).step_time_s for half in (8.0, 64.0)
    )
    assert (many > few * 1.001) == slower


def test_a_lower_power_limit_slows_matmuls_only() -> None:
    full, capped = load_chip("h100-sxm"), load_chip("h100-sxm-96gb-hbm2e")
    assert capped.peak("bf16") == full.peak("bf16")  # what utilisation is relative to
    assert capped.sustained == pytest.approx((capped.power_w / full.power_w) ** 0.4, abs=0.01)
    slower = step(chip="h100-sxm-96gb-hbm2e").time_parts_s["matmul"] / step().time_parts_s["matmul"]
    assert slower == pytest.approx(1.0 / capped.sustained, rel=0.03)


def test_a_pace_scales_every_part() -> None:
    base, slow = step(), step(dataclasses.replace(EAGER, pace=1.1))
    for part, seconds in base.time_parts_s.items():
        assert slow.time_parts_s[part] == pytest.approx(1.1 * seconds)
    assert slow.memory_bytes == base.memory_bytes
