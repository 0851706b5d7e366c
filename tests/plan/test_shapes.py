import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.cost.inventory import count_parameters
from jaxscale.errors import SpecError
from jaxscale.plan.shapes import dense_shape, moe_shape, point_of, size_name


@settings(max_examples=40, deadline=None)
@given(params=st.floats(3e8, 2e12))
def test_shapes_hit_their_size_and_fill_the_hardware(params):
    shape = dense_shape(params)
    assert count_parameters(shape).total == pytest.approx(params, rel=0.03)
    assert shape.d_model % 128 == 0
    assert shape.d_ff % 128 == 0
    assert shape.num_heads * shape.head_dim == shape.d_model
    assert shape.num_heads % shape.num_kv_heads == 0
    assert shape.num_layers % 2 == 0
    assert 40 <= shape.d_model / shape.num_layers <= 170


@pytest.mark.parametrize("params", [3e7, 1.2e8])
def test_small_models_with_a_small_vocabulary(params):
    assert count_parameters(dense_shape(params, vocab_size=32_768)).total == pytest.approx(params, rel=0.05)


def test_a_vocabulary_larger_than_the_model_is_refused():
    with pytest.raises(SpecError, match="vocabulary"):
        dense_shape(5e6, vocab_size=262_144)


@pytest.mark.parametrize("params", [0.0, -1.0, 1e15])
def test_sizes_that_nobody_builds_are_refused(params):
    with pytest.raises(SpecError, match="outside what can be built"):
        dense_shape(params)


@pytest.mark.parametrize("experts", [2, 8, 32])
def test_mixtures_keep_active_parameters_and_multiply_the_mlp(experts):
    dense, mixed = dense_shape(3e9), moe_shape(3e9, experts)
    count = count_parameters(mixed)
    assert count.active == pytest.approx(3e9, rel=0.05)
    assert count.experts == pytest.approx(experts * count_parameters(dense).mlp, rel=0.05)
    assert mixed.moe.num_experts == experts * mixed.moe.experts_per_token


def test_one_expert_is_a_dense_model():
    assert moe_shape(3e9, 1) == dense_shape(3e9)


def test_conventions_of_a_real_shape():
    shape = dense_shape(8e9)
    count = count_parameters(shape)
    point = point_of(shape, 1e11, 4096)
    table = shape.vocab_size * shape.d_model
    assert point.total == count.total
    assert point.non_embedding == count.total - 2 * table
    assert point.with_head == count.total - table
    # DeepSeek's M of a plain transformer is 72 L d^2 + 12 L d s where d_ff is 4d and nothing is grouped.
    assert point.flops_per_token == pytest.approx(
        6 * point.non_embedding + 12 * shape.num_layers * shape.d_model * 4096
    )


def test_names():
    assert size_name(999.6e6) == "1.0b"
    assert size_name(1.2e12) == "1.2t"
