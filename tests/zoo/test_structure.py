"""Structure of the zoo: names, parameters, segments. Nothing is computed here."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import jaxprs_in_params

from jaxscale import zoo
from jaxscale.catalog import load_model, model_names
from jaxscale.cost.inventory import count_parameters, inventory
from jaxscale.types import ModelShape, MoEShape
from tests.zoo.cases import CASES, shape
from tests.zoo.draw import quick_jit

SPARSE = MoEShape(num_experts=4, experts_per_token=1, expert_d_ff=8)
NOT_ACTIVATIONS = {"layer_output"}  # the residual sum: it is the next layer's input, which is always saved


def named(jaxpr):
    """Every `checkpoint_name` of a jaxpr, however deep."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "name":
            yield equation.params["name"]
        for inner in jaxprs_in_params(equation.params):
            yield from named(inner)


def layer_names(model: ModelShape, kind: zoo.LayerKind) -> set[str]:
    index = next(
        (i, j)
        for i, segment in enumerate(zoo.segments(zoo.layer_kinds(model)))
        for j, found in enumerate(segment.kinds)
        if found == kind
    )
    stack = zoo.abstract_params(model)["segments"][index[0]][index[1]]
    layer = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stack)
    body = zoo.layer_body(model, kind, comms=zoo.LocalComms(), execution=zoo.Execution())
    context = jax.eval_shape(lambda: zoo.make_context(model, jnp.arange(16, dtype=jnp.int32)[None]))

    def loss(layer, x, context):
        return jnp.sum(body(layer, x, context)[0])

    x = jax.ShapeDtypeStruct((2, 16, model.d_model), jnp.float32)
    return set(named(jax.make_jaxpr(jax.grad(loss))(layer, x, context).jaxpr))


@pytest.mark.parametrize("name", CASES)
def test_activation_names_are_the_op_names(name):
    model = CASES[name].shape
    for kind in set(zoo.layer_kinds(model)):
        ops = {op.name for op in inventory(model).layer("moe" if kind.moe else "dense")}
        assert layer_names(model, kind) == ops - NOT_ACTIVATIONS


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_those_of_the_inventory(name):
    model = CASES[name].shape
    infos = jax.tree.leaves(zoo.parameter_info(model))
    assert sum(info.size for info in infos) == count_parameters(model).total
    assert all(len(info.dims) == len(info.shape) for info in infos)


def test_every_model_of_the_catalogue_can_be_built():
    for name in model_names():
        model = load_model(name)
        built = sum(info.size for info in jax.tree.leaves(zoo.parameter_info(model)))
        assert built == count_parameters(model).total, name


@pytest.mark.parametrize("name", ["gpt2", "gpt_oss", "deepseek_v3"])
def test_random_start_has_the_described_tree(name):
    model = CASES[name].shape
    abstract = zoo.abstract_params(model, vocab_multiple=8)
    filled = jax.eval_shape(lambda: zoo.init_params(model, jax.random.key(0), vocab_multiple=8))
    assert jax.tree.structure(abstract) == jax.tree.structure(filled)
    assert [x.shape for x in jax.tree.leaves(abstract)] == [x.shape for x in jax.tree.leaves(filled)]


def test_a_trillion_parameters_cost_no_memory():
    moe = MoEShape(num_experts=384, experts_per_token=8, expert_d_ff=2048)
    model = shape("deepseek_v3", num_layers=61, d_model=7168, num_heads=64, num_kv_heads=64, head_dim=128, moe=moe)
    assert sum(info.size for info in jax.tree.leaves(zoo.parameter_info(model))) > 1e12


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [(12, 1)]),
        ({"window": 8, "global_interval": 2}, [(6, 2)]),
        ({"window": 8, "global_interval": 5}, [(2, 5), (2, 1)]),
        ({"moe": dataclasses.replace(SPARSE, num_leading_dense_layers=3)}, [(3, 1), (9, 1)]),
        ({"moe": dataclasses.replace(SPARSE, layer_interval=3)}, [(4, 3)]),
    ],
)
def test_layer_patterns_become_few_segments(changes, expected):
    model = shape("llama", num_layers=12, **changes)
    found = zoo.segments(zoo.layer_kinds(model))
    assert [(s.repeats, len(s.kinds)) for s in found] == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=24))
def test_segments_spell_the_layers_out(pattern):
    kinds = tuple(zoo.LayerKind(moe=moe, window=0) for moe in pattern)
    spelled = tuple(kind for segment in zoo.segments(kinds) for _ in range(segment.repeats) for kind in segment.kinds)
    assert spelled == kinds


def test_padding_the_vocabulary_changes_no_start_value():
    model = CASES["llama3"].shape
    plain, padded = (
        quick_jit(lambda key, m=m: zoo.init_params(model, key, vocab_multiple=m))(jax.random.key(3)) for m in (1, 8)
    )
    assert (padded["embedding"]["table"][: model.vocab_size] == plain["embedding"]["table"]).all()
    assert (padded["head"]["kernel"][:, : model.vocab_size] == plain["head"]["kernel"]).all()
    assert padded["embedding"]["table"].shape[0] == zoo.padded_vocab(model, 8) == 104
