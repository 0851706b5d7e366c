"""Laws of the laws: registry, conventions, ranges, and properties that hold for any constants."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.errors import SpecError
from jaxscale.plan.law import QUANTITIES, Point
from jaxscale.plan.laws import LAWS, batch, compression, data, dense, hyper, law_named, laws_for, moe
from jaxscale.plan.shapes import nominal_point

budgets = st.floats(1e18, 1e27)
sizes = st.floats(1e7, 1e13)
tokens = st.floats(1e8, 1e14)
additive = st.sampled_from([dense.HOFFMANN_A3, dense.BESIROGLU, dense.SARDANA, dense.GEMSTONES_HOT, data.MUENNIGHOFF])


@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
def test_every_law_answers_every_quantity_it_lists(law):
    point = nominal_point(1e9, 2e10)
    point = Point(**{f: getattr(point, f) for f in point.__slots__} | {"loss": 3.0, "unique_tokens": 1e10})
    for quantity, function in law.quantities.items():
        value = function(1e20) if quantity == "allocation" else function(point)
        assert np.all(np.isfinite(value)), quantity
        assert np.all(np.asarray(value) > 0), quantity


@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
def test_every_law_has_a_source_and_a_mark(law):
    assert law.source
    assert law.title
    assert law.mark in ("VS", "VR", "V2", "FM")


def test_defaults_are_verified_only():
    for quantity in QUANTITIES:
        assert all(law.mark in ("VS", "VR") for law in laws_for(quantity))
    assert {law.name for law in laws_for("batch_tokens", second_hand=True)} > {
        law.name for law in laws_for("batch_tokens")
    }


def test_second_hand_constants_are_named_to_the_user():
    assert "second-hand" in law_named("deepseek").warnings()[0]
    assert "not verified" in law_named("power_lines").warnings()[0]


def test_extrapolation_is_counted_in_decades():
    law = law_named("besiroglu")
    assert law.decades_outside(flops=3e23) == pytest.approx({"flops": 2.0})
    assert law.decades_outside(flops=1e20, params=1e9) == {}
    assert "2.0 decades outside" in law.warnings(flops=3e23)[0]


def test_unknown_law_names_the_nearest():
    with pytest.raises(SpecError, match="besiroglu"):
        law_named("besirogul")


@given(law=additive, flops=budgets)
def test_closed_optimum_is_the_minimum_of_the_loss(law, flops):
    params, spent = law.optimum(flops)
    assert 6 * params * spent == pytest.approx(flops)
    around = params * np.array([0.5, 0.9, 1.1, 2.0])
    assert np.all(law.loss(around, flops / (6 * around)) >= law.loss(params, spent))


@given(law=additive, flops=budgets)
def test_compute_for_a_loss_inverts_the_best_loss(law, flops):
    assert law.flops_for_loss(law.loss(*law.optimum(flops))) == pytest.approx(flops, rel=1e-6)


@given(law=additive, params=sizes, spent=tokens)
def test_tokens_for_a_loss_inverts_the_loss(law, params, spent):
    assert law.tokens_for_loss(params, law.loss(params, spent)) == pytest.approx(spent, rel=1e-4)


@given(unique=tokens, epochs=st.floats(1.0, 100.0))
def test_repetition_never_beats_fresh_data_and_saturates(unique, epochs):
    effective = data.effective_tokens(epochs * unique, unique)
    assert unique * 0.999999 <= effective <= epochs * unique * 1.000001
    assert effective <= unique * (1 + data.R_STAR_TOKENS)


@given(params=sizes, spent=tokens)
def test_unrepeated_data_and_matched_size_are_the_plain_law(params, spent):
    matched = min(params, float(data.params_for_tokens(spent)))
    assert data.repeated_loss(matched, spent, spent) == pytest.approx(data.MUENNIGHOFF.loss(matched, spent))


@settings(max_examples=20)
@given(flops=st.floats(1e20, 1e24), share=st.floats(0.02, 0.9))
def test_scarce_data_means_a_smaller_model_than_more_epochs_would_train(flops, share):
    params, spent = data.MUENNIGHOFF.optimum(flops)
    best, _ = data.repeated_optimum(flops, share * spent)
    assert best <= params * 1.01


@given(ratio=st.floats(1e-3, 1e3))
def test_steps_and_samples_lie_on_the_hyperbola(ratio):
    steps, samples = batch.steps_ratio(ratio, 1.0), batch.samples_ratio(ratio, 1.0)
    assert (steps - 1) * (samples - 1) == pytest.approx(1.0)


@given(gradient=st.floats(0.1, 10), trace=st.floats(0.1, 1e4), small=st.floats(1, 100), factor=st.floats(1.5, 100))
def test_two_batches_recover_the_noise_scale(gradient, trace, small, factor):
    norms = [gradient + trace / size for size in (small, small * factor)]
    found = batch.noise_scale_of_two_batches(small, norms[0], small * factor, norms[1])
    assert found == pytest.approx((gradient, trace, trace / gradient), rel=1e-3)


def test_adam_peaks_at_the_noise_scale_and_is_symmetric():
    ratios = np.geomspace(0.01, 100, 41)
    rates = batch.adam_rate_ratio(ratios, 1.0)
    assert ratios[np.argmax(rates)] == pytest.approx(1.0)
    np.testing.assert_allclose(rates, rates[::-1])


@given(experts=st.floats(1.0, 64.0), flops=st.floats(1e19, 1e23))
def test_joint_law_optimum_is_its_minimum(experts, flops):
    params, spent = moe.JOINT_MOE.optimum(flops, experts)
    around = params * np.array([0.5, 0.9, 1.1, 2.0])
    assert np.all(
        moe.JOINT_MOE.loss(around, flops / (6 * around), experts) >= moe.JOINT_MOE.loss(params, spent, experts)
    )


def test_more_experts_are_better_only_without_a_memory_limit():
    unlimited = moe.joint_moe_best(1e22)
    tight = moe.joint_moe_best(1e22, memory_params=12e9)
    assert unlimited[0] > tight[0]
    assert unlimited[3] < tight[3]


def test_fewer_bits_count_for_fewer_parameters():
    shares = compression.precision_share(np.array([2.0, 4.0, 8.0, 16.0]), compression.KUMAR_GAMMA_BITS["weights"])
    assert np.all(np.diff(shares) > 0)
    assert shares[-1] < 1


def test_pruned_models_follow_their_average_size():
    assert compression.average_params(1e9, 1e9) == 1e9
    assert compression.average_params(2e9, 1e9, 0.25, 0.75) == pytest.approx(1.5e9)


@pytest.mark.parametrize("shape", ["cosine", "wsd", "linear"])
def test_schedules_warm_up_peak_and_end_low(shape):
    progress = np.linspace(0, 1, 101)
    factor = hyper.schedule_factor(progress, shape, warmup=0.05)
    assert factor.max() == pytest.approx(1.0, abs=1e-6)
    assert factor[0] == 0.0
    assert factor[-1] == pytest.approx(0.0, abs=1e-9)
    assert np.all(np.diff(factor[6:]) <= 1e-12)


def test_wsd_is_flat_until_its_cooldown():
    np.testing.assert_allclose(hyper.schedule_factor(np.array([0.1, 0.5, 0.79]), "wsd", cooldown=0.2), 1.0)


def test_sparsity_forms_reduce_to_chinchilla_without_their_extra_terms():
    constants = dict(a=400.0, alpha=0.34, b=2000.0, beta=0.37, c=0.0, d=0.0, delta=1.0, gamma=1.0, e=1.8) | {
        "lambda": 1.0
    }
    assert moe.abnar_loss(1e9, 2e10, 0.5, constants) == pytest.approx(
        dense.Additive(E=1.8, A=400.0, B=2000.0, alpha=0.34, beta=0.37).loss(1e9, 2e10)
    )


def test_upcycling_saturates_with_dense_training():
    """alpha3 > 0: the longer the dense model was trained, the less each token after upcycling is worth."""
    constants = {"A": 30.0, "alpha1": 0.1, "alpha2": 0.1, "alpha3": 0.002, "E": 1.5}
    gains = [moe.upcycled_loss(d1, 1e9, constants) - moe.upcycled_loss(d1, 2e9, constants) for d1 in (1e10, 1e12)]
    assert gains[0] > gains[1] > 0


def test_kaplan_learning_rate_turns_negative():
    law = law_named("kaplan_learning_rate")
    assert law.quantities["learning_rate"](nominal_point(2e10, 1e11)) < 0
    assert math.isclose(LAWS["kaplan"].quantities["allocation"](8.64e19)[0], 1.3e9)
