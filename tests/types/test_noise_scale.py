"""Averages of the gradient noise scale: unbiased, and divided last."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxscale.errors import SpecError
from jaxscale.types.noise import NoiseScale


def test_known_noise_is_found() -> None:
    """Gradients of sequences are G + noise of a known covariance; 400 steps of 16 sequences in small batches of 2."""
    rng = np.random.default_rng(0)
    gradient, deviation = rng.normal(size=50), rng.uniform(0.5, 2.0, size=50)
    averages = NoiseScale(small_batch=2, big_batch=16)
    for _ in range(400):
        sequences = gradient + deviation * rng.normal(size=(16, 50))
        small = sequences.reshape(8, 2, 50).mean(axis=1)
        averages = averages.after(np.mean(np.sum(small**2, axis=1)), np.sum(sequences.mean(axis=0) ** 2))
    trace, square = np.sum(deviation**2), np.sum(gradient**2)
    assert averages.num_steps == 400
    assert averages.mean_trace == pytest.approx(trace, rel=0.1)
    assert averages.mean_square == pytest.approx(square, rel=0.1)
    assert averages.sequences == pytest.approx(trace / square, rel=0.15)


@given(trace=st.floats(1e-6, 1e6), square=st.floats(1e-6, 1e6), small=st.floats(1.0, 64.0), ratio=st.floats(1.5, 64.0))
def test_expected_norms_give_back_what_made_them(trace: float, square: float, small: float, ratio: float) -> None:
    """E|G_B|^2 = |G|^2 + tr(Sigma) / B (McCandlish et al. 2018, eq. A.1)."""
    big = ratio * small
    averages = NoiseScale(small_batch=small, big_batch=big)
    for _ in range(3):
        averages = averages.after(square + trace / small, square + trace / big)
    tolerance = 1e-9 * (trace + square) * ratio
    assert averages.mean_trace == pytest.approx(trace, rel=1e-6, abs=tolerance * small)
    assert averages.mean_square == pytest.approx(square, rel=1e-6, abs=tolerance)


def test_a_gradient_that_drowns_has_no_scale() -> None:
    averages = NoiseScale(small_batch=1, big_batch=2)
    assert averages.sequences is None
    assert averages.after(small_square=3.0, big_square=1.0).sequences is None


@pytest.mark.parametrize(("small", "big"), [(0, 4), (4, 4), (8, 4)])
def test_batches_must_differ(small: float, big: float) -> None:
    with pytest.raises(SpecError, match="small_batch"):
        NoiseScale(small_batch=small, big_batch=big)
