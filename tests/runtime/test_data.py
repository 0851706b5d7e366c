"""Token sources are functions of (step, row); packed documents are kept apart; real text is learned."""

import pydoc_data.topics

import jax
import numpy as np
import pytest

from jaxscale.errors import SpecError
from jaxscale.runtime import NO_TARGET, TrainOptions, build_step
from jaxscale.runtime.data import SyntheticTokens, TokenFile, load_batch, packed_row
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
    source = TokenFile(path=path, seq_len=10, global_batch_size=5)
    first_epoch = [source.row(step, row).tokens[0] for step in range(2) for row in range(5)]
    second_epoch = [source.row(step, row).tokens[0] for step in range(2, 4) for row in range(5)]
    assert sorted(first_epoch) == sorted(second_epoch) == list(range(0, 100, 10))
    assert first_epoch != second_epoch


def test_files_that_are_no_tokens_are_refused(tmp_path):
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(SpecError, match=r"not a \.npy array of token ids"):
        TokenFile(path=tmp_path / "text.npy", seq_len=4, global_batch_size=1)
    np.save(tmp_path / "short.npy", np.arange(4))
    with pytest.raises(SpecError, match="4 tokens are less than one window of seq_len=4"):
        TokenFile(path=tmp_path / "short.npy", seq_len=4, global_batch_size=1)


def test_real_text_is_learned(tmp_path):
    """The byte-level text of Python's own help topics, packed by topic."""
    topics = [np.frombuffer(text.encode()[:4000], np.uint8) for text in pydoc_data.topics.topics.values()]
    text = np.concatenate([np.append(topic[topic > 0], 0) for topic in topics]).astype(np.uint16)
    np.save(tmp_path / "topics.npy", text)
    workload = Workload(seq_len=64, global_batch_size=16)
    source = TokenFile(path=tmp_path / "topics.npy", seq_len=64, global_batch_size=16, end_of_document=0)
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
