"""Token sources are functions of (step, row); packed documents are kept apart; real text is learned."""

import pydoc_data.topics

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from jaxscale.errors import SpecError
from jaxscale.runtime import NO_TARGET, TrainOptions, build_step
from jaxscale.runtime.data import SyntheticTokens, TokenFile, load_batch, packed_row, shuffled
from jaxscale.types import Layout, ModelShape, Workload


def test_synthetic_rows_do_not_depend_on_what_was_read_before():
    source = SyntheticTokens(seq_len=16, vocab_size=50)
    np.testing.assert_array_equal(source.row(3, 2).tokens, source.row(3, 2).tokens)
    assert not np.array_equal(source.row(3, 2).tokens, source.row(2, 3).tokens)
    np.testing.assert_array_equal(source.row(0, 0).tokens[1:], source.row(0, 0).targets[:-1])


def test_packed_documents_have_own_segments_and_no_target_across():
    row = packed_row(np.array([3, 4, 0, 5, 0, 6, 7]), end_of_document=0)
    assert row.segments.tolist() == [0, 0, 0, 1, 1, 2]
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 0]
    assert row.targets.tolist() == [4, 0, NO_TARGET, 0, NO_TARGET, 7]


def test_an_epoch_reads_every_window_once(tmp_path):
    path = tmp_path / "tokens.npy"
    np.save(path, np.arange(101, dtype=np.uint16))
    source = TokenFile(path=path, seq_len=10, vocab_size=101, global_batch_size=5)
    first_epoch = [source.row(step, row).tokens[0] for step in range(2) for row in range(5)]
    second_epoch = [source.row(step, row).tokens[0] for step in range(2, 4) for row in range(5)]
    assert sorted(first_epoch) == sorted(second_epoch) == list(range(0, 100, 10))
    assert first_epoch != second_epoch


@given(st.integers(1, 300), st.integers())
def test_a_shuffle_visits_every_place_once(size, seed):
    assert sorted(shuffled(place, size, str(seed)) for place in range(size)) == list(range(size))


def test_a_shuffle_of_a_large_text_looks_random():
    size = 10**9
    found = np.array([shuffled(place, size, "0/0") for place in range(4000)]) / size
    assert np.histogram(found, bins=8, range=(0, 1))[0].min() > 400
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.05


def test_hosts_read_their_own_rows_only(tmp_path):
    np.save(tmp_path / "tokens.npy", np.arange(1000, dtype=np.uint32))
    source = TokenFile(path=tmp_path / "tokens.npy", seq_len=8, vocab_size=1000, global_batch_size=8)
    asked = []

    class Watched:
        def row(self, step, row):
            asked.append(row)
            return source.row(step, row)

    mesh = jax.make_mesh((2, 4), ("host", "device"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    workload = Workload(seq_len=8, global_batch_size=8)
    batch = load_batch(Watched(), 5, workload, NamedSharding(mesh, PartitionSpec(("host", "device"), None)))
    assert sorted(asked) == list(range(8))  # each once, for all four arrays
    expected = np.stack([source.row(5, row).targets for row in range(8)])
    np.testing.assert_array_equal(batch.targets, expected)


def test_files_that_are_no_tokens_are_refused(tmp_path):
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(SpecError, match=r"not a \.npy array of token ids"):
        TokenFile(path=tmp_path / "text.npy", seq_len=4, vocab_size=9, global_batch_size=1)
    np.save(tmp_path / "short.npy", np.arange(4))
    np.save(tmp_path / "wide.npy", np.array([1, 2, 300, 4, 5, 6]))
    with pytest.raises(SpecError, match="token id 300 after place 0 is not one of the model's vocab_size=256"):
        TokenFile(path=tmp_path / "wide.npy", seq_len=4, vocab_size=256, global_batch_size=1).row(0, 0)
    with pytest.raises(SpecError, match="4 tokens are less than one window of seq_len=4"):
        TokenFile(path=tmp_path / "short.npy", seq_len=4, vocab_size=9, global_batch_size=1)


def test_real_text_is_learned(tmp_path):
    """The byte-level text of Python's own help topics, packed by topic."""
    topics = [np.frombuffer(text.encode()[:4000], np.uint8) for text in pydoc_data.topics.topics.values()]
    text = np.concatenate([np.append(topic[topic > 0], 0) for topic in topics]).astype(np.uint16)
    np.save(tmp_path / "topics.npy", text)
    workload = Workload(seq_len=64, global_batch_size=16)
    source = TokenFile(
        path=tmp_path / "topics.npy", seq_len=64, vocab_size=256, global_batch_size=16, end_of_document=0
    )
    shape = ModelShape(
        name="bytes", num_layers=2, d_model=64, num_heads=4, num_kv_heads=4, head_dim=16, d_ff=128, vocab_size=256
    )
    layout = Layout(fsdp=2, microbatch_size=8)
    options = TrainOptions(learning_rate=1e-2, warmup_steps=5)
    train = build_step(shape, workload, layout, jax.devices()[:2], options=options)
    state, losses = train.init(), []
    for step in range(60):
        state, metrics = train.step(state, load_batch(source, step, workload, train.batch_sharding))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[:3]) > 5.0  # ln 256 is 5.5
    assert np.mean(losses[-5:]) < 3.0  # bytes by frequency alone are above 3
