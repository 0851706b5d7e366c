"""Constants: scales, priors, and the fields they stand for."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxscale.calibrate import CONSTANTS, Software
from jaxscale.calibrate.constants import constant_named
from jaxscale.calibrate.own_runs import surely_better
from jaxscale.types import Stack

FIELDS = {f.name for f in dataclasses.fields(Stack)}


@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda c: c.name)
def test_a_constant_is_a_field_with_a_sourced_prior(constant):
    assert constant.field in FIELDS
    assert constant.spread > 0
    assert constant.source
    assert constant_named(constant.name) is constant


@given(free=st.floats(-4.0, 4.0))
@pytest.mark.parametrize("scale", ["log", "logit"])
def test_scales_invert(scale, free):
    constant = next(c for c in CONSTANTS if c.scale == scale)
    assert constant.free(constant.value(free)) == pytest.approx(free, abs=1e-9)


def test_names_are_unique():
    assert len({c.name for c in CONSTANTS}) == len(CONSTANTS)


@pytest.mark.parametrize("kernel", ["naive", "flash1", "flash2", "flash3", "splash"])
@pytest.mark.parametrize("matmul", ["bf16", "fp8"])
@pytest.mark.parametrize("stack", ["megatron", "xla_tpu"])
def test_at_most_one_constant_sets_a_field(kernel, matmul, stack):
    """Features exclude each other: two constants that set one field would make the order of the table matter."""
    for fused in (True, False):
        software = Software(
            stack=stack, attention_kernel=kernel, matmul=matmul, fused_norm=fused, fused_softmax=fused,
            fused_elementwise=fused, async_tensor=fused, rowwise_fp8=fused,
        )  # fmt: skip
        fields = [c.field for c in CONSTANTS if c.applies(software)]
        assert len(fields) == len(set(fields))


def test_a_refit_replaces_constants_only_where_it_is_surely_better() -> None:
    before = np.array([0.10, 0.12, 0.09, 0.11, 0.10])
    assert surely_better(0.2 * before, before)  # a bias of one's own cluster
    assert not surely_better(0.97 * before, before)  # too little to matter
    lucky = np.array([0.02, 0.16, 0.01, 0.15, 0.05])  # better on average, for three runs of five
    assert np.mean(lucky) < 0.95 * np.mean(before)
    assert not surely_better(lucky, before)
