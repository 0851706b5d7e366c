"""Lifetime cost, goodput, serving and the shortest training time, against papers and simulation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.catalog import load_chip, load_cluster
from jaxscale.cost.inventory import count_parameters
from jaxscale.errors import InfeasibleError
from jaxscale.plan.economics import goodput as reliability
from jaxscale.plan.economics import lifetime, serving, time_optimal
from jaxscale.plan.economics.flops_count import hoffmann_count
from jaxscale.plan.laws import dense, kaplan
from jaxscale.plan.shapes import dense_shape, moe_shape
from jaxscale.types import ModelShape

PALM = ModelShape(
    name="palm-540b", num_layers=118, d_model=18432, num_heads=48, num_kv_heads=1, head_dim=256, d_ff=73728,
    vocab_size=256_000, tied_embeddings=True, parallel_block=True,
)  # fmt: skip
GPT3 = ModelShape(
    name="gpt3", num_layers=96, d_model=12288, num_heads=96, num_kv_heads=96, head_dim=128, d_ff=49152,
    vocab_size=50257, mlp="gelu", tied_embeddings=True,
)  # fmt: skip


# Lifetime


def test_without_demand_the_cheapest_model_is_compute_optimal():
    plan = lifetime.same_quality(dense.SARDANA, 30e9, 1.0)
    assert plan.params == pytest.approx(30e9, rel=0.01)
    assert plan.saved_share == pytest.approx(0.0, abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(demand=st.floats(1e11, 1e14), factor=st.floats(1.5, 10.0))
def test_more_demand_means_a_smaller_model_trained_longer(demand, factor):
    less, more = (lifetime.same_quality(dense.SARDANA, 13e9, d) for d in (demand, factor * demand))
    assert more.params <= less.params
    assert more.tokens >= less.tokens
    assert dense.SARDANA.loss(more.params, more.tokens) == pytest.approx(more.loss, rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(flops=st.floats(1e21, 1e25), demand=st.floats(1e10, 1e13))
def test_splitting_a_budget_spends_it_and_cannot_be_owned_cheaper(flops, demand):
    params, tokens = lifetime.split_of_budget(dense.BESIROGLU, flops, demand)
    assert 6 * params * tokens == pytest.approx(flops, rel=1e-3)
    loss = dense.BESIROGLU.loss(params, tokens)
    cost = lifetime.lifetime_cost(params, tokens, demand, lifetime.UnitCost())
    for other in (0.8 * params, 1.25 * params):
        if other > dense.BESIROGLU.least_params(loss):
            needed = dense.BESIROGLU.tokens_for_loss(other, loss)
            assert lifetime.lifetime_cost(other, needed, demand, lifetime.UnitCost()) >= cost * (1 - 1e-6)


# Goodput


def test_llama3_failure_rate():
    """419 unexpected interruptions of 16,384 GPUs in 54 days (arXiv 2407.21783, section 3.3.4)."""
    found = reliability.goodput(16384, 2048, 1e12)
    assert found.expected_failures_per_day * 54 == pytest.approx(419)


def test_expected_wall_time_matches_a_simulation():
    generator = np.random.default_rng(0)
    interval, checkpoint, restart, mean = 600.0, 60.0, 120.0, 3000.0
    walls = []
    for _ in range(400):
        wall = done = 0.0
        while done < 20 * interval:
            # A restart can fail too; the exponential has no memory, so failures inside it draw again.
            failure = generator.exponential(mean)
            if failure >= interval + checkpoint:
                wall, done = wall + interval + checkpoint, done + interval
                continue
            wall += failure
            while (again := generator.exponential(mean)) < restart:
                wall += again
            wall += restart
        walls.append(wall)
    expected = reliability.expected_wall_s(20 * interval, interval, checkpoint, restart, mean)
    assert np.mean(walls) == pytest.approx(expected, rel=0.02)


@given(checkpoint=st.floats(1.0, 600.0), mean=st.floats(3600.0, 1e7))
def test_the_interval_is_the_best_one(checkpoint, mean):
    best = reliability.best_interval_s(checkpoint, mean)
    costs = [reliability.expected_wall_s(1e5, best * f, checkpoint, 300.0, mean) for f in (0.5, 1.0, 2.0)]
    assert min(costs) == costs[1]


@given(chips=st.integers(8, 10**6))
def test_more_chips_fail_more_often(chips):
    small, large = (reliability.goodput(n, max(1, n // 8), 1e12) for n in (chips, 2 * chips))
    assert large.mean_time_between_failures_s < small.mean_time_between_failures_s
    assert 0.0 < large.share < 1.0


# Serving (Pope et al. 2022, arXiv 2211.05102, Tables 1 and 2; PaLM 540B on 64 TPU v4)


def palm_point(**changes):
    point = serving.ServingPoint(chip=load_chip("tpu-v4"), num_chips=64, network_bytes_per_s=270e9, torus_axes=3)
    return replace(point, **changes)


@pytest.mark.parametrize(
    ("shape", "sharding", "batch", "published"),
    [
        (replace(PALM, num_kv_heads=48, head_dim=128), "heads", 128, 1320),
        (PALM, "heads", 128, 660),
        (PALM, "batch", 128, 43_000),
    ],
)
def test_longest_context_of_palm(shape, sharding, batch, published):
    assert serving.longest_context(shape, palm_point(cache_sharding=sharding), batch) == pytest.approx(
        published, rel=0.015
    )


@pytest.mark.parametrize(
    ("batch", "new_tokens", "context", "changes", "published_s"),
    [
        (1, 2048, 0, {"weight_bytes": 1.0}, 0.29),
        (64, 1, 2048, {"weight_bytes": 1.0}, 0.0285),
        (64, 1, 2048, {}, 0.0369),
        (512, 2048, 0, {"partition": "weight_gathered"}, 85.2),
        (512, 1, 2048, {}, 6.0 / 64),
    ],
)
def test_palm_latency_is_bounded_and_near(batch, new_tokens, context, changes, published_s):
    """The roofline is a lower bound, and the sum with usual efficiencies comes within 15% of what was measured."""
    time = serving.pass_time(PALM, palm_point(**changes), batch=batch, new_tokens=new_tokens, context=context)
    pure = serving.Efficiency(matmul=1.0, memory=1.0, network=1.0, hop_s=0.0)
    ideal = serving.pass_time(
        PALM, palm_point(**changes), batch=batch, new_tokens=new_tokens, context=context, efficiency=pure
    )
    assert ideal.lower_s < published_s
    assert 0.85 < time.upper_s / published_s < 1.15


def test_cache_of_each_attention_kind():
    gqa = dense_shape(8e9)
    assert serving.cache_values_per_token(gqa) == gqa.num_layers * 2 * gqa.num_kv_heads * gqa.head_dim
    windowed = replace(gqa, window=1024, global_interval=4)
    assert serving.cached_tokens(windowed, 8192) == pytest.approx((3 * 1024 + 8192) / 4)
    assert serving.cached_tokens(windowed, 512) == 512


def test_a_mixture_reads_few_experts_at_small_batch_and_all_at_large():
    shape = moe_shape(3e9, 8)
    count = count_parameters(shape)
    one, many = (
        serving.pass_time(shape, palm_point(num_chips=1), batch=b, new_tokens=1, context=1).memory_s for b in (1, 4096)
    )
    assert one / many == pytest.approx(count.active / count.total, rel=0.15)


def test_two_dimensional_partitioning_wins_on_many_chips_only():
    """2D is better when n > 16 for F = 4 D (section 3.2.2, which gives every collective the whole bandwidth)."""
    ideal = serving.Efficiency(hop_s=0.0)
    for chips, better in ((4, "1d"), (64, "2d")):
        times = {
            partition: serving.pass_time(
                PALM,
                palm_point(num_chips=chips, partition=partition, torus_axes=0),
                batch=64,
                new_tokens=1,
                context=1,
                efficiency=ideal,
            ).network_s
            for partition in ("1d", "2d")
        }
        assert min(times, key=times.get) == better


def test_a_collective_over_one_axis_of_a_torus_has_that_axis_only():
    """The same bytes on the same bandwidth are slower cut by axes than behind a switch, where any cut has it all."""
    ideal = serving.Efficiency(hop_s=0.0)
    asked = {"batch": 64, "new_tokens": 1, "context": 1, "efficiency": ideal}
    torus, switch = (serving.pass_time(PALM, palm_point(torus_axes=axes), **asked).network_s for axes in (3, 0))
    assert 1.0 < torus / switch < 3.0


def test_serving_prices_grow_with_size_and_say_when_nothing_fits():
    cluster = load_cluster("h100-sxm:8")
    small, large = (serving.cheapest_serving(dense_shape(n), cluster) for n in (8e9, 70e9))
    assert 0 < small.decode_dollars_per_million < large.decode_dollars_per_million
    assert small.prefill_dollars_per_million < small.decode_dollars_per_million
    with pytest.raises(InfeasibleError, match="cannot be served"):
        serving.cheapest_serving(dense_shape(2e12), cluster)


# The shortest training time (Lamy-Poirier 2021, arXiv 2106.02679)

A100 = {"peak_flops_per_s": 312e12}
A100_NETWORK = time_optimal.Network(node_size=8, inner_bytes_per_s=300e9, outer_bytes_per_s=25e9)


def gpt3_times(network, **chip):
    loss = kaplan.loss(count_parameters(GPT3).total, 300e9)
    demand = time_optimal.demand_of_tokens(300e9, float(kaplan.critical_batch_tokens(loss)))
    return {
        method: time_optimal.fastest_training(GPT3, demand, network, method=method, **chip)
        for method in ("standard", "layered")
    }


def test_layered_accumulation_nearly_halves_the_shortest_training():
    times = gpt3_times(A100_NETWORK, **A100)
    assert 1.7 < times["standard"].training_s / times["layered"].training_s < 2.0
    assert times["standard"].parts_s["bubble"] > 0.4 * times["standard"].step_s
    assert times["layered"].parts_s["bubble"] < 0.1 * times["layered"].step_s


def test_layered_accumulation_needs_no_fast_network():
    slow = replace(A100_NETWORK, outer_bytes_per_s=25e9 / 8)
    assert gpt3_times(slow, **A100)["layered"].training_s < gpt3_times(A100_NETWORK, **A100)["standard"].training_s


def test_a_wide_fast_domain_takes_part_of_the_gain_away():
    wide = time_optimal.Network(node_size=72, inner_bytes_per_s=900e9, outer_bytes_per_s=50e9)
    today = gpt3_times(wide, peak_flops_per_s=2250e12)
    then = gpt3_times(A100_NETWORK, **A100)
    gain = {name: t["standard"].training_s / t["layered"].training_s for name, t in (("today", today), ("then", then))}
    assert gain["today"] < gain["then"]


def test_parts_sum_to_the_step_and_the_batch_stays_under_the_critical_one():
    for found in gpt3_times(A100_NETWORK, **A100).values():
        assert sum(found.parts_s.values()) == pytest.approx(found.step_s)
        assert found.training_s == pytest.approx(found.steps * found.step_s)
        loss = kaplan.loss(count_parameters(GPT3).total, 300e9)
        assert found.batch_tokens <= kaplan.critical_batch_tokens(loss)


def test_network_of_a_catalogued_cluster():
    network = time_optimal.network_of(load_cluster("h100-sxm:64"))
    assert network.node_size == 8
    assert network.inner_bytes_per_s > network.outer_bytes_per_s


def test_hoffmann_counts_grow_with_kv_heads():
    sizes = dict(num_layers=2, d_model=256, num_heads=4, head_dim=64, d_ff=512, vocab_size=1000, seq_len=128)
    assert hoffmann_count(**sizes).params - hoffmann_count(**sizes, num_kv_heads=1).params == 2 * 2 * 256 * 64 * 3
