"""The planner on a cost model made for the purpose, and its answers to nonsense."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.catalog import load_cluster
from jaxscale.cli.plan import command
from jaxscale.cost.inventory import count_parameters
from jaxscale.errors import InfeasibleError, JaxscaleError, SpecError
from jaxscale.plan import Ask, make_plan, parse_budget, time_for_money
from jaxscale.plan.budget.front import Rates, alternatives, front_of, pareto
from jaxscale.plan.budget.recipe import recipe, round_sequences
from jaxscale.plan.budget.text import plan_json, plan_text
from jaxscale.plan.laws import LAWS, hyper
from jaxscale.plan.shapes import dense_shape, nominal_point
from jaxscale.types import Estimate, Layout

DAY_S = 86400.0
H100 = load_cluster("h100-sxm:256")


def at_mfu(mfu):
    """A cost model that reaches one utilisation everywhere, 6ND counted."""

    def evaluate(shape, workload, cluster):
        active = count_parameters(shape).active
        flops_per_s = mfu * cluster.num_chips * cluster.chip.peak("bf16")
        step_s = 6.0 * active * workload.tokens_per_step / flops_per_s
        rate = workload.tokens_per_step / (step_s * cluster.num_chips)
        return Estimate(
            tier="predicted", layout=Layout(fsdp=cluster.num_chips), step_time_s=step_s, lower_s=step_s, upper_s=step_s,
            time_parts_s={"compute": step_s}, memory_bytes=1.0, memory_limit_bytes=2.0, memory_parts_bytes={"all": 1.0},
            comm_bytes={}, model_flops=1.0, hardware_flops=1.0, mfu=mfu, hfu=mfu, tokens_per_s_per_chip=rate,
            dollars_per_billion_tokens=cluster.dollars_per_chip_hour / 3600 / rate * 1e9,
        )  # fmt: skip

    return evaluate


def test_a_time_budget_is_spent_to_the_day():
    plan = make_plan(Ask(cluster=H100, time_s=21 * DAY_S), at_mfu(0.5))
    assert plan.run.days == pytest.approx(21.0, rel=1e-3)
    spent = 0.5 * 256 * 989e12 * 21 * DAY_S * plan.run.goodput.share
    assert plan.decision.flops == pytest.approx(spent, rel=0.02)
    assert plan.run.dollars == pytest.approx(256 * 21 * 24 * H100.dollars_per_chip_hour, rel=1e-3)
    assert plan.run.megawatt_hours == pytest.approx(256 * 700e-6 * 21 * 24 * 1.2, rel=1e-3)


def test_assumptions_are_moved_one_by_one():
    fixed_time = make_plan(Ask(cluster=H100, time_s=21 * DAY_S), at_mfu(0.5))
    for effect in fixed_time.run.assumptions:
        assert effect.days is None
        assert effect.loss >= fixed_time.decision.losses["besiroglu"]
    fixed_compute = make_plan(Ask(cluster=H100, flops=1e23), at_mfu(0.5))
    slower, failing, storing = fixed_compute.run.assumptions
    assert slower.days == pytest.approx(fixed_compute.run.days / 0.9)
    assert slower.days > failing.days > fixed_compute.run.days
    assert storing.days > fixed_compute.run.days


def test_the_shortest_training_needs_more_chips_and_less_time():
    run = make_plan(Ask(cluster=H100, time_s=21 * DAY_S), at_mfu(0.5)).run
    assert run.shortest.num_chips > run.num_chips
    assert run.shortest.training_days < run.days


def test_half_the_utilisation_is_half_the_compute():
    fast, slow = (make_plan(Ask(cluster=H100, time_s=21 * DAY_S), at_mfu(mfu)) for mfu in (0.6, 0.3))
    assert slow.decision.flops == pytest.approx(fast.decision.flops / 2, rel=0.03)
    assert slow.active_params < fast.active_params


@settings(max_examples=12, deadline=None)
@given(flops=st.floats(1e19, 1e26))
def test_compute_is_spent_as_6nd_on_a_real_shape(flops):
    plan = make_plan(Ask(flops=flops))
    assert 6 * plan.active_params * plan.recipe.tokens == pytest.approx(flops, rel=0.02)
    assert plan.recipe.tokens == plan.recipe.steps * plan.recipe.batch_tokens
    assert plan.decision.chosen_law == plan.decision.regret.choice
    assert all(a.mark in ("VS", "VR") for a in plan.decision.allocations)


def test_second_hand_laws_only_on_request_and_marked():
    plan = make_plan(Ask(flops=1e22, second_hand=True))
    assert "deepseek" in [a.law for a in plan.decision.allocations]
    assert any("second-hand" in line for line in plan.warnings)


def test_more_compute_is_never_worse():
    losses = [make_plan(Ask(flops=c)).decision.losses["besiroglu"] for c in (1e21, 1e22, 1e23, 1e24)]
    assert losses == sorted(losses, reverse=True)


def test_serving_makes_the_model_smaller_and_a_limit_caps_it():
    free = make_plan(Ask(flops=1e23))
    served = make_plan(Ask(flops=1e23, inference_tokens=1e13))
    capped = make_plan(Ask(flops=1e23, max_params=8e9))
    assert served.active_params < free.active_params
    assert capped.total_params <= 8e9 * 1.03
    assert capped.recipe.tokens > free.recipe.tokens


def test_scarce_data_is_repeated_and_shrinks_the_model():
    fresh, scarce = make_plan(Ask(flops=1e23)), make_plan(Ask(flops=1e23, unique_tokens=5e10))
    assert fresh.decision.epochs == 1.0
    assert scarce.decision.epochs > 4
    assert scarce.decision.chosen_law == "muennighoff"
    assert any("epochs" in line for line in scarce.warnings)
    assert scarce.decision.losses["muennighoff"] > fresh.decision.losses["muennighoff"]


def test_given_tokens_are_kept():
    alone, with_compute = make_plan(Ask(tokens=2e12)), make_plan(Ask(tokens=2e12, flops=1e23))
    for plan in (alone, with_compute):
        assert plan.recipe.tokens == pytest.approx(2e12, rel=0.02)
    assert 6 * with_compute.active_params * 2e12 == pytest.approx(1e23, rel=0.03)


def test_a_loss_of_a_mixture_of_experts_is_reached_under_the_joint_law():
    plan = make_plan(Ask(loss=2.1, moe=True))
    assert plan.decision.losses["joint_moe"] == pytest.approx(2.1, abs=0.03)
    assert plan.decision.flops_by_law["joint_moe"] < plan.decision.flops_by_law["besiroglu"]


def test_a_loss_is_reached_under_the_reference_law():
    plan = make_plan(Ask(loss=2.1))
    assert plan.decision.losses["besiroglu"] == pytest.approx(2.1, abs=0.01)
    assert set(plan.decision.flops_by_law) == {"hoffmann_a3", "besiroglu", "muennighoff"}


def test_experts_fit_the_memory_and_are_compared_on_the_hardware():
    plan = make_plan(Ask(cluster=H100, time_s=21 * DAY_S, moe=True), at_mfu(0.4))
    assert plan.shape.moe is not None
    assert plan.total_params * 18 < H100.num_chips * H100.chip.hbm_bytes

    def dense_only(shape, workload, cluster):
        return at_mfu(0.5 if shape.moe is None else 0.02)(shape, workload, cluster)

    assert make_plan(Ask(cluster=H100, time_s=21 * DAY_S, moe=True), dense_only).shape.moe is None


def test_nothing_fits_is_said():
    with pytest.raises(InfeasibleError, match="no layout"):
        make_plan(Ask(cluster=H100, flops=1e23), lambda *_: None)


# Recipe


@given(sequences=st.floats(1.0, 1e6))
def test_batches_are_round_and_near(sequences):
    rounded = round_sequences(sequences)
    assert rounded == pytest.approx(sequences, rel=0.15, abs=0.6)
    if rounded >= 8:
        odd = rounded
        while odd % 2 == 0:
            odd //= 2
        assert odd <= 7


def test_a_wide_cluster_raises_the_batch_on_a_declared_path():
    point = nominal_point(8e9, 1e11)
    narrow, wide = recipe(point, num_chips=8), recipe(point, num_chips=4096)
    assert wide.batch_tokens > narrow.batch_tokens
    assert narrow.batch_path.startswith("optimal")
    assert wide.batch_path.startswith("raised")
    optimal = hyper.step_law_batch_tokens(1e11)
    assert wide.learning_rate == pytest.approx(narrow.learning_rate * math.sqrt(wide.batch_tokens / optimal), rel=1e-6)


def test_a_batch_never_passes_the_critical_one_for_width_alone():
    r = recipe(nominal_point(8e9, 1e10), num_chips=10**6)
    assert r.batch_tokens <= 1.2 * r.critical_batch_tokens


# Fronts


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=1, max_size=30))
def test_nobody_beats_a_point_on_the_front(points):
    costs, losses = np.array(points).T
    for i in np.flatnonzero(pareto(costs, losses)):
        assert not np.any((costs <= costs[i]) & (losses < losses[i]) | (costs < costs[i]) & (losses <= losses[i]))


def test_the_lifetime_front_prefers_smaller_models():
    rates = Rates(training_per_flop=1.0, serving_per_param=2e13, unit="FLOPs")
    points = alternatives(LAWS["besiroglu"], 2e10, 8e11, rates)
    trained, owned = (front_of(points, lifetime=flag) for flag in (False, True))
    assert owned[len(owned) // 2].params < trained[len(trained) // 2].params
    assert [p.loss for p in trained] == sorted((p.loss for p in trained), reverse=True)


# What is asked


@pytest.mark.parametrize(
    ("text", "cluster", "time_s", "dollars"),
    [
        ("256xh100-sxm for 21 days", "h100-sxm:256", 21 * DAY_S, None),
        ("64 x tpu-v4 for 36 hours", "tpu-v4:64", 36 * 3600.0, None),
        ("v5p-512 for 3 weeks", "v5p-512", 21 * DAY_S, None),
        ("2xv5p-256 for 3 weeks", "2xv5p-256", 21 * DAY_S, None),
        ("$2M on h100-sxm:256", "h100-sxm:256", None, 2e6),
        ("$ 500k of 8xa100-sxm", "a100-sxm:8", None, 5e5),
    ],
)
def test_budgets_as_people_write_them(text, cluster, time_s, dollars):
    read = parse_budget(text)
    assert (read.cluster, read.time_s, read.dollars) == (cluster, time_s, dollars)


def test_money_buys_time():
    assert time_for_money(H100, H100.dollars_per_chip_hour * 256) == pytest.approx(3600.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "nothing to plan from"),
        ({"flops": -1e23}, "above zero"),
        ({"flops": 0.0}, "above zero"),
        ({"flops": float("nan")}, "finite"),
        ({"flops": 1e35}, "hundred times over"),
        ({"flops": 1e10}, "hundred times under"),
        ({"flops": 1e23, "loss": 2.0}, "contradict"),
        ({"loss": 2.0, "tokens": 1e12}, "contradict"),
        ({"tokens": 1e20}, "ask between"),
        ({"tokens": 2e12, "unique_tokens": 1e8}, "epochs"),
        ({"flops": 1e23, "seq_len": 0}, "context"),
        ({"flops": 1e23, "inference_tokens": -1.0}, "inference-tokens"),
    ],
)
def test_nonsense_is_refused_in_words(fields, message):
    with pytest.raises(SpecError, match=message):
        Ask(**fields)


@pytest.mark.parametrize("loss", [1.0, 20.0])
def test_losses_that_no_training_reaches_are_refused(loss):
    with pytest.raises(SpecError, match="loss"):
        make_plan(Ask(loss=loss))


@pytest.mark.parametrize("text", ["", "256 for 21 days please", "0xh100-sxm for 3 days", "8xh100-sxm for 3 parsecs"])
def test_budgets_that_cannot_be_read(text):
    with pytest.raises(SpecError, match="--budget"):
        parse_budget(text)


# The verb


def run(*arguments):
    return CliRunner().invoke(command, arguments)


def test_plan_prints_json_with_everything(tmp_path):
    result = run("--budget", "8xh100-sxm for 3 days", "--json", "--report", str(tmp_path / "plan.html"))
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["run"]["days"] == pytest.approx(3.0, rel=0.01)
    assert 0.1 < record["run"]["estimate"]["mfu"] < 0.9
    assert record["decision"]["regret"]["choice"] == record["decision"]["chosen_law"]
    assert {"law", "mark", "convention", "interval", "decades_outside"} <= record["decision"]["allocations"][0].keys()
    page = (tmp_path / "plan.html").read_text(encoding="utf-8")
    assert all(f'class="plot" id="{name}"' in page for name in ("frontier", "contours", "regret", "fronts", "cost"))


def test_plan_says_its_answer_in_words():
    result = run("--flops", "1e22")
    assert result.exit_code == 0
    for words in ("Train", "batch path", "none is averaged", "Compute wasted", "Least loss"):
        assert words in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--flops", "-1e23"),
        ("--flops", "1e40"),
        ("--flops", "1e23", "--loss", "2.0"),
        ("--budget", "8xh100-sxm for 0 days"),
        ("--budget", "8xh100-sxm for 3 days", "--cluster", "v5p-64"),
        ("--budget", "8xnothing for 3 days"),
        ("--loss", "0.5"),
    ],
)
def test_nonsense_exits_with_2(arguments):
    result = run(*arguments)
    assert isinstance(result.exception, JaxscaleError)
    assert result.exception.exit_code == 2


def test_numbers_that_are_none_are_a_usage_error():
    assert run("--flops", "many").exit_code == 2


def test_text_and_json_need_no_cluster():
    plan = make_plan(Ask(flops=1e22))
    json.dumps(plan_json(plan), allow_nan=False)
    assert "On " not in plan_text(plan)
    assert dense_shape(plan.decision.params).num_layers > 0
