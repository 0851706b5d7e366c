"""The fit engine finds constants that made the data, and says how sure it is."""

import numpy as np
import pytest

from jaxscale.errors import MeasurementError
from jaxscale.plan.fit import FORMS, LAW_NAMES, LEAST_SQUARES, fit, fit_law, leave_out_largest, objective_of, read_runs
from jaxscale.plan.fit.curves import grid_loss_gap, isoflop_minima, near_best_runs, power_law
from jaxscale.plan.laws import data, dense, hyper, kaplan


def runs(loss, *, noise=0.0, seed=0, **extra):
    """A grid of runs with losses of a law."""
    params, tokens = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, 8), np.geomspace(1e9, 1e12, 7)))
    generator = np.random.default_rng(seed)
    columns = {"params": params, "tokens": tokens, **{k: np.broadcast_to(v, params.shape) for k, v in extra.items()}}
    values = loss(params, tokens, *columns.values()) if extra else loss(params, tokens)
    return columns | {"loss": values * np.exp(noise * generator.standard_normal(len(params)))}


def test_chinchilla_is_recovered_from_its_own_losses():
    found = fit(FORMS["chinchilla"], runs(dense.BESIROGLU.loss)).constants
    for name in ("E", "A", "B", "alpha", "beta"):
        assert found[name] == pytest.approx(getattr(dense.BESIROGLU, name), rel=1e-3)
    assert found["a"] == pytest.approx(dense.BESIROGLU.params_exponent, rel=1e-3)


def test_outliers_do_not_move_a_huber_fit_but_move_least_squares():
    columns = runs(dense.BESIROGLU.loss)
    columns["loss"] = columns["loss"].copy()
    columns["loss"][[3, 17, 40]] *= 1.5
    robust = fit(FORMS["chinchilla"], columns).constants["E"]
    plain = fit(FORMS["chinchilla"], columns, how=LEAST_SQUARES).constants["E"]
    assert abs(robust / 1.8172 - 1) < 0.01 < abs(plain / 1.8172 - 1)


def test_kaplan_form_is_recovered():
    found = fit(FORMS["kaplan"], runs(kaplan.loss)).constants
    assert found["alpha_N"] == pytest.approx(0.076, rel=0.01)
    assert found["alpha_D"] == pytest.approx(0.103, rel=0.01)


def test_repetition_constants_are_recovered():
    columns = runs(dense.BESIROGLU.loss)
    unique = columns["tokens"] / np.tile([1.0, 3.0, 10.0, 30.0], len(columns["tokens"]) // 4)
    columns |= {"unique_tokens": unique, "loss": data.repeated_loss(columns["params"], columns["tokens"], unique)}
    found = fit(FORMS["datablations"], columns).constants
    assert found["R_D"] == pytest.approx(data.R_STAR_TOKENS, rel=0.02)
    assert found["alpha"] == pytest.approx(0.3526596, rel=0.01)


def test_a_wider_form_fits_at_least_as_well():
    """With k = 1 the powered form is Chinchilla, whose own losses it must then meet."""
    found = fit(FORMS["skaling"], runs(dense.BESIROGLU.loss))
    assert found.rms_log_error < 1e-5
    assert found.constants["k"] == pytest.approx(1.0, abs=0.02)


def test_farseer_form_follows_a_law_of_another_form_closely():
    assert fit(FORMS["farseer"], runs(dense.BESIROGLU.loss)).rms_log_error < 3e-3


def test_gadre_form_is_recovered():
    found = fit(FORMS["gadre"], runs(dense.GADRE["c4"].loss), how=LEAST_SQUARES).constants
    assert found["eta"] == pytest.approx(0.1212, rel=1e-3)
    assert found["a"] == pytest.approx(141.28, rel=1e-2)


def test_bootstrap_covers_the_truth_and_repeats_with_its_seed():
    columns = runs(dense.BESIROGLU.loss, noise=0.004)
    first, second = (fit(FORMS["chinchilla"], columns, draws=12, seed=7) for _ in range(2))
    low, high = first.interval("alpha", 1.0)
    assert low < 0.3478 < high
    np.testing.assert_array_equal(first.bootstrap, second.bootstrap)


def test_leave_out_predicts_the_largest_runs():
    check = leave_out_largest(FORMS["chinchilla"], runs(dense.BESIROGLU.loss, noise=0.002))
    assert check["held_out"] >= 10
    assert check["largest_relative_error"] < 0.02


def test_a_fit_beats_rounded_constants_on_its_own_objective():
    columns = runs(dense.HOFFMANN_A3.loss)
    exact, rounded = (
        objective_of(FORMS["chinchilla"], {k: getattr(law, k) for k in ("E", "A", "B", "alpha", "beta")}, columns)
        for law in (dense.HOFFMANN_A3, dense.HOFFMANN_A3_ROUNDED)
    )
    assert exact < 1e-12 < rounded


def test_isoflop_minima_of_a_known_law():
    budgets = np.geomspace(1e19, 1e21, 5)
    sizes = np.geomspace(0.5, 2.0, 9)
    best = np.array([dense.BESIROGLU.optimum(c)[0] for c in budgets])
    params = (best[:, None] * sizes).ravel()
    flops = np.repeat(budgets, len(sizes))
    tokens = flops / (6 * params)
    minima = isoflop_minima({"params": params, "tokens": tokens, "loss": dense.BESIROGLU.loss(params, tokens)})
    np.testing.assert_allclose(minima["params"], best, rtol=0.03)
    result = fit_law("isoflop", {"params": params, "tokens": tokens, "loss": dense.BESIROGLU.loss(params, tokens)})
    assert result.constants["params_exponent_flops"] == pytest.approx(dense.BESIROGLU.params_exponent, abs=0.005)


def test_power_law_recovers_exponents_and_weights_count():
    x = np.geomspace(1, 1e4, 12)
    y = 3.0 * x**0.7
    y[0] *= 5.0
    spread = np.full(12, 0.1)
    spread[0] = 1e6
    assert power_law(("x",), (x,), y, relative_std=spread).exponents[0] == pytest.approx(0.7)
    assert power_law(("x",), (x,), y).exponents[0] < 0.65


def step_grid():
    """Losses with a known best learning rate and batch in each cell."""
    rows = []
    for params in (1e8, 4e8, 1.6e9):
        for tokens in (1e9, 1e10, 1e11):
            rate, batch = hyper.step_law_learning_rate(params, tokens), hyper.step_law_batch_tokens(tokens)
            for i in np.linspace(-2, 2, 9):
                for j in np.linspace(-2, 2, 9):
                    loss = 2.5 * (1 + 0.01 * (i**2 + j**2))
                    rows.append((params, tokens, loss, rate * 2**i, batch * 2**j))
    return dict(zip(("params", "tokens", "loss", "learning_rate", "batch_tokens"), np.array(rows).T, strict=True))


def test_step_law_is_recovered_from_a_grid():
    result = fit_law("steplaw", step_grid(), draws=20)
    assert result.constants["learning_rate_exponent_params"] == pytest.approx(-0.713, abs=1e-6)
    assert result.constants["batch_exponent_tokens"] == pytest.approx(0.571, abs=1e-6)
    assert result.leave_out["mean_loss_gap"] == pytest.approx(0.0, abs=1e-12)


def test_a_wrong_rate_costs_loss_on_the_grid():
    grid = step_grid()
    right = hyper.step_law_learning_rate(grid["params"], grid["tokens"])
    gaps = grid_loss_gap(grid, right * 4.0, hyper.step_law_batch_tokens(grid["tokens"]))
    assert np.mean(list(gaps.values())) == pytest.approx(0.04, abs=1e-6)
    best_and_its_neighbours = 1 + 4  # half a factor of two away in one of them costs 0.25%
    assert near_best_runs(grid, threshold=0.0026).sum() == 9 * best_and_its_neighbours


def test_runs_are_read_by_their_usual_headers_and_derived(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("Model Size,Training FLOP,loss,set\n1e9,6e19,3.0,a\n2e9,,2.5,a\n1e9,6e20,9.0,a\n1e9,6e20,2.8,b\n")
    columns = read_runs(path, where={"set": "a"}, drop_highest=1)
    assert columns["tokens"].tolist() == [1e10]
    scaled = read_runs(path, columns={"batch_tokens": "loss*2048"}, where={"set": "b"})
    assert scaled["batch_tokens"].tolist() == [2.8 * 2048]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params,tokens\n1,2\n", "no column loss"),
        ("params,tokens,loss\n1,2,3\n", "cannot determine"),
        ("params,tokens,loss\n" + "".join(f"1e9,{i}e9,{3 - i / 20}\n" for i in range(1, 9)), "same params"),
        ("params,tokens,loss\n" + "".join(f"{i}e8,{i}e9,-1\n" for i in range(1, 9)), "not above zero"),
    ],
)
def test_data_that_cannot_be_fitted_say_why(tmp_path, text, message):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(MeasurementError, match=message):
        fit_law("chinchilla", read_runs(path), draws=0)


def test_unknown_names_are_suggested(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("params,tokens,loss\n1,2,3\n")
    with pytest.raises(MeasurementError, match="chinchilla"):
        fit_law("chinchila", read_runs(path))
    with pytest.raises(MeasurementError, match="no column 'lossy'"):
        read_runs(path, columns={"loss": "lossy"})
    assert set(FORMS) < set(LAW_NAMES)
