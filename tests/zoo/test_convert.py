"""Checkpoint files: layouts turn back, and every mismatch is a sentence."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from jaxscale import zoo
from jaxscale.errors import SpecError
from jaxscale.zoo.checkpoint.convert import params_from_tensors, tensors_from_params
from jaxscale.zoo.checkpoint.families import FAMILIES
from jaxscale.zoo.checkpoint.layouts import load, parse_layout, store
from jaxscale.zoo.checkpoint.tensor_files import INDEX, SINGLE
from tests.zoo.cases import CASES
from tests.zoo.draw import random_params

ENTRIES = sorted({(e.layout, tuple(own for _, own in e.ours)) for f in FAMILIES.values() for e in (*f.layer, *f.top)})


@settings(max_examples=200, deadline=None)
@given(entry=st.sampled_from(ENTRIES), sizes=st.lists(st.integers(1, 5), min_size=12, max_size=12))
def test_every_layout_turns_back(entry, sizes):
    """Parameters joined in one tensor may differ in the joined dim only."""
    text, owns = entry
    layout = parse_layout(text)
    shared = dict(zip("nhdferlvpo", sizes, strict=False))
    joined = set(layout.groups[layout.joined_group]) if layout.joined_group >= 0 else {layout.joined_dim}
    shapes = [
        tuple(sizes[-1 - i] if letter in joined else shared[letter] for letter in own.split() if letter != "1")
        for i, own in enumerate(owns)
    ]
    arrays = [np.random.default_rng(i).random(shape) for i, shape in enumerate(shapes)]
    stored = store(layout, owns, arrays)
    assert stored.size == sum(a.size for a in arrays)
    for back, array in zip(load(layout, owns, shapes, stored), arrays, strict=True):
        np.testing.assert_array_equal(back, array)


def small(name="llama3", **changes):
    model = dataclasses.replace(CASES[name].shape, num_layers=2, **changes)
    return model, random_params(model)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model, params = small()
    folder = tmp_path_factory.mktemp("checkpoint")
    zoo.save_checkpoint(model, params, folder)
    return model, params, folder


def test_bfloat16_and_padding_survive_the_files(tmp_path):
    model, params = small("qwen2")
    short = jax.tree.map(lambda x: x.astype("bfloat16"), params)
    zoo.save_checkpoint(model, short, tmp_path, max_shard_bytes=10_000)
    assert (tmp_path / INDEX).exists()
    again = zoo.load_checkpoint(model, tmp_path, vocab_multiple=64)
    assert again["embedding"]["table"].shape[0] == 128
    zoo.save_checkpoint(model, again, tmp_path / "again")
    final = zoo.load_checkpoint(model, tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, final, short)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(final)} == {"bfloat16"}


def test_gpt2_files_may_lack_their_prefix():
    """The published gpt2 has `h.0.attn...`, files of later versions `transformer.h.0.attn...`; and mask buffers."""
    model, params = small("gpt2")
    tensors = {k.removeprefix("transformer."): v for k, v in tensors_from_params(model, params)}
    tensors["h.0.attn.bias"] = np.ones((1, 1, 4, 4), np.float32)
    again = params_from_tensors(model, frozenset(tensors), tensors.__getitem__)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_layers_past_the_end_are_left():
    """DeepSeek-V3's files hold one more layer, for multi-token prediction."""
    model, params = small("deepseek_v3")
    tensors = dict(tensors_from_params(model, params)) | {"model.layers.2.eh_proj.weight": np.ones((2, 2))}
    again = params_from_tensors(model, frozenset(tensors), tensors.__getitem__)
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_layers": 3}, r"'model.layers.2.input_layernorm.weight' is missing"),
        ({"d_ff": 64}, r"tensor 'model.layers.0.mlp.*' does not fit: its shape is .*, the model's is"),
        ({"qkv_bias": True}, r"'model.layers.0.self_attn.q_proj.bias' is missing.*Did you mean"),
        ({"qk_norm": "head"}, r"family 'llama' stores no tensor for attention/k_norm/scale"),
        ({"family": "lama"}, r"family='lama' has no checkpoint mapping.*Did you mean llama"),
    ],
)
def test_a_shape_that_is_not_the_checkpoints(saved, changes, sentence):
    model, _, folder = saved
    with pytest.raises(SpecError, match=sentence):
        zoo.load_checkpoint(dataclasses.replace(model, **changes), folder)


def test_a_tensor_nobody_reads_is_an_error(saved, tmp_path):
    model, _, folder = saved
    tensors = load_file(folder / SINGLE) | {"model.layers.0.self_attn.q_proj.bias": np.ones(32, np.float32)}
    save_file(tensors, tmp_path / SINGLE)
    with pytest.raises(SpecError, match="1 stored tensors have no parameter"):
        zoo.load_checkpoint(model, tmp_path)


def test_broken_files_are_refused(saved, tmp_path):
    model, _, folder = saved
    with pytest.raises(SpecError, match="is missing; a checkpoint is"):
        zoo.load_checkpoint(model, tmp_path)
    (tmp_path / SINGLE).write_bytes((folder / SINGLE).read_bytes()[:1000])
    with pytest.raises(SpecError, match="cannot be read as safetensors"):
        zoo.load_checkpoint(model, tmp_path)
