"""The gradient noise scale of a step against per-sequence gradients, one backward pass each."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxscale.runtime import TrainOptions, build_step
from jaxscale.runtime.placement.params import is_plan
from jaxscale.runtime.program.batch import NO_TARGET
from jaxscale.runtime.program.noise import noise_split, unsummed
from jaxscale.types import parse_layout, precision_named
from tests.runtime.parity import SHAPES, Case, make_batch

SEQUENCES = 8


def _build(layout, *, shape="gqa", noise_scale=True):
    workload = dataclasses.replace(Case(shape=shape, layout="").workload, precision=precision_named("fp32"))
    parsed = parse_layout(layout)
    devices = jax.devices()[: parsed.num_devices]
    return build_step(SHAPES[shape], workload, parsed, devices, options=TrainOptions(noise_scale=noise_scale))


@pytest.fixture(scope="module")
def oracle():
    """Gradients of the mean loss of every sequence by itself: a list of leaves, each [sequences, ...]."""
    alone = _build("microbatch_size=1", noise_scale=False)
    state = alone.init()
    params = jax.tree.map(np.asarray, state.master)
    batch = make_batch(alone.program.workload, 61, packed=False)
    rows = []
    for row in range(SEQUENCES):
        others = np.arange(SEQUENCES) != row
        targets = np.where(others[:, None], NO_TARGET, batch.targets)
        gradients, _ = alone.gradients(state, dataclasses.replace(batch, targets=targets))
        rows.append([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(gradients)])
    return params, batch, [np.array(leaf) for leaf in zip(*rows, strict=True)]


def _groups(layout, *, apart, scanned):
    """Sequences of each small batch, [count, size]: by place on the data axis, and by microbatch where scanned."""
    by_place = np.arange(SEQUENCES).reshape(layout.data, layout.fsdp, -1, layout.microbatch_size)  # [d, f, m, b]
    if scanned:
        by_microbatch = by_place.transpose(0, 2, 1, 3)  # [d, m, f, b]
        if not apart:
            by_microbatch = by_microbatch.transpose(1, 0, 2, 3)
        return by_microbatch.reshape((layout.data if apart else 1) * by_place.shape[2], -1)
    return by_place.reshape(layout.data, -1)


@pytest.mark.parametrize(
    ("layout", "apart", "scanned"),
    [
        ("microbatch_size=1", False, True),
        ("fsdp=2,microbatch_size=1", False, True),  # reduced with every microbatch
        ("data=2,tensor=2,zero=0,microbatch_size=2", True, True),  # microbatches of each half
        ("data=2,fsdp=2,zero=3,microbatch_size=2", True, False),  # the only microbatch of each half
        ("data=2,pipeline=2,zero=1,microbatch_size=1", True, False),  # a pipeline sums before anybody can look
        ("context=2,microbatch_size=2,zero=3", False, True),
    ],
)
def test_against_gradients_of_single_sequences(layout, apart, scanned, oracle):
    params, batch, leaves = oracle
    train = _build(layout)
    groups = _groups(train.program.layout, apart=apart, scanned=scanned)
    averages = train.noise_scale()
    assert (averages.small_batch, averages.big_batch) == (groups.shape[1], SEQUENCES)
    _, metrics = train.step(train.init(params), jax.device_put(batch, train.batch_sharding))
    small, big = float(metrics["small_batch_square"]), float(metrics["big_batch_square"])

    split = noise_split(train.program)
    plans = jax.tree.leaves(train.program.plans, is_leaf=is_plan)
    seen = [leaf for plan, leaf in zip(plans, leaves, strict=True) if _is_seen(train.program, plan, split)]
    assert len(seen) >= 7  # all matrices of a layer
    vectors = np.concatenate([leaf.reshape(SEQUENCES, -1) for leaf in seen], axis=1)
    means = vectors[groups].mean(axis=1)
    assert big == pytest.approx(np.sum(vectors.mean(axis=0) ** 2), rel=1e-4)
    assert small == pytest.approx(np.mean(np.sum(means**2, axis=1)), rel=1e-4)
    # The estimate from two norms is the sample covariance of the small batches, scaled to one sequence.
    covariance = np.sum((means - means.mean(axis=0)) ** 2) / (len(means) - 1)
    assert averages.after(small, big).mean_trace == pytest.approx(groups.shape[1] * covariance, rel=1e-3)


def _is_seen(program, plan, split):
    return plan.trained and plan.is_matrix and unsummed(program, plan) == split.axes


def test_nothing_is_reported_where_the_whole_batch_is_summed_at_once():
    train = _build("fsdp=2,microbatch_size=4")
    assert train.noise_scale() is None
    assert "small_batch_square" not in jax.eval_shape(train.step, train.abstract_state(), train.abstract_batch())[1]


def test_a_step_that_is_not_asked_computes_nothing_more():
    asked, plain = _build("data=2,microbatch_size=2"), _build("data=2,microbatch_size=2", noise_scale=False)
    assert plain.noise_scale() is None
    texts = [train.lower().as_text() for train in (asked, plain)]
    # One all-reduce of two numbers is all that crosses devices for it.
    assert texts[0].count("all_reduce") == texts[1].count("all_reduce") + 1
