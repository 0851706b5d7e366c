"""Disagreement of the laws, against the matrix that public constants give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.errors import SpecError
from jaxscale.plan.laws import LAWS, law_named, laws_for
from jaxscale.plan.panel import (
    allocate,
    best_loss,
    flops_for_loss,
    flops_for_tokens,
    loss_of,
    regret,
    sensitivity,
    wasted,
)
from jaxscale.plan.shapes import nominal_point

TRUTHS = ["besiroglu", "hoffmann_a3", "muennighoff"]

# N* and D/N at a budget, and percent wasted under each truth, from the published constants.
ALLOCATIONS = {
    "hoffmann_a1": {1e20: (9.1e8, 20), 5.76e23: (6.8e10, 21), 3.8e25: (5.5e11, 21)},
    "hoffmann_a3": {1e20: (7.8e8, 28), 5.76e23: (4.0e10, 59), 3.8e25: (2.7e11, 85)},
    "besiroglu": {1e20: (8.5e8, 23), 5.76e23: (7.2e10, 18), 3.8e25: (6.2e11, 17)},
    "muennighoff": {1e20: (9.2e8, 20), 5.76e23: (7.0e10, 20), 3.8e25: (5.7e11, 20)},
    "llama3": {1e20: (1.0e9, 16), 5.76e23: (5.6e10, 30), 3.8e25: (3.9e11, 41)},
    "deepseek": {1e20: (8.8e8, 22), 5.76e23: (8.2e10, 14), 3.8e25: (7.4e11, 12)},
    "joint_moe": {1e20: (1.7e9, 6), 5.76e23: (1.6e11, 4), 3.8e25: (1.4e12, 3)},
    "kaplan": {1e20: (1.45e9, 8), 5.76e23: (8.0e11, 0.15), 3.8e25: (1.7e13, 0.02)},
}
WASTED = {
    ("hoffmann_a1", 5.76e23): (0, 8, 0),
    ("hoffmann_a3", 5.76e23): (11, 0, 10),
    ("llama3", 5.76e23): (2, 3, 2),
    ("llama3", 3.8e25): (7, 4, 5),
}


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_laws_allocate_as_published_constants_say(name):
    for flops, (params, ratio) in ALLOCATIONS[name].items():
        answer = allocate(law_named(name), flops)
        assert answer.law_params == pytest.approx(params, rel=0.06)
        # Kaplan's D is a fit of its own and not C / 6N.
        expected = flops / (6 * answer.law_params**2) if name == "kaplan" else answer.tokens / answer.law_params
        assert expected == pytest.approx(ratio, rel=0.15)


@pytest.mark.parametrize(("name", "flops"), WASTED)
def test_wasted_compute_as_public_constants_say(name, flops):
    params = law_named(name).quantities["allocation"](flops)[0]
    for truth, percent in zip(TRUTHS, WASTED[name, flops], strict=True):
        assert 100 * wasted(law_named(truth), params, flops / (6 * params)) == pytest.approx(percent, abs=0.6)


def test_kaplan_wastes_most_of_its_compute():
    params = law_named("kaplan").quantities["allocation"](5.76e23)[0]
    shares = [wasted(law_named(truth), params, 5.76e23 / (6 * params)) for truth in TRUTHS]
    assert all(0.84 <= share <= 0.97 for share in shares)


def test_the_choice_has_the_least_worst_case():
    allocations = [allocate(law, 5.76e23) for law in laws_for("allocation")]
    crossed = regret(allocations, laws_for("loss"), 5.76e23)
    assert crossed.choice == "llama3"
    assert max(crossed.wasted[crossed.laws.index("llama3")]) == min(crossed.worst)


@settings(max_examples=25)
@given(flops=st.floats(1e18, 1e27))
def test_a_law_regrets_nothing_under_itself(flops):
    for name in TRUTHS:
        answer = allocate(LAWS[name], flops)
        assert wasted(LAWS[name], answer.params, answer.tokens) <= 1e-6


@settings(max_examples=25)
@given(flops=st.floats(1e18, 1e26), factor=st.floats(0.1, 10.0))
def test_waste_is_a_share(flops, factor):
    params = allocate(LAWS["besiroglu"], flops).params * factor
    assert 0.0 <= wasted(LAWS["besiroglu"], params, flops / (6 * params)) < 1.0


def test_compute_for_a_loss_and_for_tokens_inverts():
    law = LAWS["besiroglu"]
    assert flops_for_loss(law, best_loss(law, 1e22)) == pytest.approx(1e22, rel=1e-6)
    assert flops_for_tokens(law, allocate(law, 1e22).tokens) == pytest.approx(1e22, rel=1e-6)


def test_an_impossible_loss_names_the_floor():
    with pytest.raises(SpecError, match="irreducible"):
        flops_for_loss(LAWS["besiroglu"], 1.5)


def test_conventions_are_converted_and_not_mixed():
    """Porian counts the head and no input embedding: the same model has more total parameters."""
    answer = allocate(LAWS["porian"], 1e20)
    assert answer.convention == "with_head"
    assert answer.params > answer.law_params
    point = nominal_point(answer.law_params, answer.tokens, convention="with_head")
    assert point.with_head == pytest.approx(answer.law_params)


@settings(max_examples=40)
@given(params=st.floats(1e7, 1e13))
def test_every_convention_finds_its_own_count_again(params):
    for convention in ("total", "non_embedding", "with_head", "active", "active_non_embedding", "non_vocabulary"):
        assert nominal_point(params, 1e12, convention=convention).params(convention) == pytest.approx(params, rel=1e-6)


def test_sensitivity_is_least_at_the_optimum():
    law = LAWS["besiroglu"]
    params, tokens = allocate(law, 1e22).params, allocate(law, 1e22).tokens
    waste = sensitivity(law, nominal_point(params, tokens), factors=(0.5, 0.9, 1.0, 1.1, 2.0))
    assert min(waste, key=waste.get) == 1.0
    assert waste[0.5] > waste[0.9]


def test_repetition_changes_the_loss_only_under_the_law_that_knows_it():
    fresh, repeated = (loss_of(LAWS["muennighoff"], 1e9, 1e11, unique_tokens=u) for u in (1e11, 1e9))
    assert repeated > fresh
    plain = [loss_of(LAWS["besiroglu"], 1e9, 1e11, unique_tokens=u) for u in (1e11, 1e9)]
    assert np.ptp(plain) == 0.0
