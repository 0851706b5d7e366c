"""Rotary frequencies: what the oracle's models do not reach."""

import numpy as np
import pytest

from jaxscale.errors import SpecError
from jaxscale.types import RopeShape
from jaxscale.zoo.rope import rope_frequencies

DYNAMIC = RopeShape(scaling="dynamic", factor=3.0, original_max_seq_len=16)


@pytest.mark.parametrize("width", [2, 4, 16])
def test_dynamic_scaling_begins_past_the_trained_length(width):
    plain, _ = rope_frequencies(RopeShape(), width, 16)
    np.testing.assert_allclose(rope_frequencies(DYNAMIC, width, 16)[0], plain)


def test_dynamic_scaling_stretches_the_slowest_pair_in_proportion():
    plain, _ = rope_frequencies(RopeShape(), 8, 32)
    stretched, _ = rope_frequencies(DYNAMIC, 8, 32)  # 3 * 32 / 16 - (3 - 1) = 4 times
    np.testing.assert_allclose(plain / stretched, [1.0, 4 ** (1 / 3), 4 ** (2 / 3), 4.0])


def test_one_pair_is_never_stretched():
    assert rope_frequencies(DYNAMIC, 2, 64)[0].tolist() == [1.0]


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        (RopeShape(scaling="yarn", factor=4.0), "scaling='yarn' needs original_max_seq_len"),
        (
            RopeShape(scaling="longrope", original_max_seq_len=16, short_factors=(1.0,), long_factors=(1.0, 2.0)),
            "long_factors has 2 numbers, but 4 pairs",
        ),
    ],
)
def test_incomplete_scaling_is_named(rope, message):
    with pytest.raises(SpecError, match=message):
        rope_frequencies(rope, 8, 64)
