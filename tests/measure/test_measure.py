"""A measured step: what a real one reports, and that every way to fail is a result."""

import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import jaxscale.measure.step as step_module
from jaxscale.cli.measure import command, figures, to_json, with_utilisation
from jaxscale.cost import estimate
from jaxscale.errors import LayoutError, MeasurementError, SpecError
from jaxscale.measure import measure
from jaxscale.study import Store
from jaxscale.types.codec import decode, encode
from jaxscale.types.measurement import Measurement
from tests.measure.requests import request

SHAPE_YAML = """name: {name}
num_layers: 1
d_model: 32
num_heads: 2
num_kv_heads: 2
head_dim: 16
d_ff: 64
vocab_size: 128
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_module, "CHILD_MODULE", "tests.measure.fake_step_child")


def timed(*times_s: float, losses: tuple[float, ...] = (2.0, 1.0)) -> Measurement:
    return Measurement(
        identifier="a", started_at="", request=request(), status="ok", step_times_s=times_s, losses=losses
    )


def test_a_real_step_on_emulated_devices() -> None:
    asked = request(layout="fsdp=2,tensor=2", cluster="cpu:4")
    phases: list[str] = []
    result = measure(asked, on_event=phases.append)
    assert (result.status, result.message) == ("ok", "")
    assert phases == ["devices", "compile", "init", "warmup", "step", "step", "step", "memory", "done"]
    assert (result.num_devices, result.device_kind) == (4, "cpu")
    assert len(result.step_times_s) == 3
    assert len(result.warmup_times_s) == 1
    assert min(*result.step_times_s, result.compile_s, result.lower_s, result.init_s) > 0
    assert result.loss_is_finite
    assert result.loss_falls
    # XLA's CPU devices keep no statistics.
    assert result.memory_source == "process"
    assert result.peak_memory_bytes > 0
    assert result.surroundings is not None
    assert {"python", "jax", "jaxlib", "jaxscale"} <= set(result.surroundings.versions)
    assert result.surroundings.flags["JAX_PLATFORMS"] == "cpu"
    assert decode(Measurement, json.loads(json.dumps(encode(result)))) == result


@pytest.mark.parametrize(
    ("behaviour", "status", "words"),
    [
        ("die", "crash", "after 'step' the measuring process was killed by SIGKILL"),
        ("abort", "out_of_memory", "bad_alloc"),
        ("exhaust", "out_of_memory", "RESOURCE_EXHAUSTED"),
        ("diverge", "not_a_number", "the loss of step 2 is nan"),
        ("work", "ok", ""),
    ],
)
@pytest.mark.usefixtures("stand_in")
def test_every_ending_is_a_result(behaviour: str, status: str, words: str) -> None:
    result = measure(request(behaviour))
    assert result.status == status
    assert words in result.message
    # What was done before the end is kept; warm-up is apart from what counts.
    assert result.warmup_times_s == (9.0,)
    assert result.step_times_s[0] == 1.0
    assert result.losses[:2] == (5.0, 4.0)
    assert result.compile_s == 2.0


@pytest.mark.usefixtures("stand_in")
def test_the_watchdog_ends_a_hang() -> None:
    result = measure(request("hang"), watchdog_s=3.0)
    assert result.status == "hang"
    assert "3 s after 'step'" in result.message


@pytest.mark.usefixtures("stand_in")
def test_the_timeout_ends_what_still_shows_life() -> None:
    result = measure(request("hang"), timeout_s=3.0)
    assert result.status == "hang"
    assert "not done within 3 s, still at work after 'step'" in result.message


@pytest.mark.usefixtures("stand_in")
def test_the_noise_scale_is_kept_and_shown() -> None:
    """|G|^2 = 3 and tr(Sigma) = 4 make norms of 7 over one sequence and of 4 over four."""
    result = measure(request("noisy"))
    assert result.noise is not None
    assert (result.noise.mean_square, result.noise.mean_trace) == (pytest.approx(3.0), pytest.approx(4.0))
    assert to_json(result)["noise_scale_sequences"] == pytest.approx(4 / 3)
    assert decode(Measurement, json.loads(json.dumps(encode(result)))) == result
    [shown] = [cell for cell in figures(result).columns[1].cells if "sequences" in str(cell)]
    assert str(shown).startswith("1.33 sequences (42.7 tokens); the batch is 4")
    assert measure(request("work")).noise is None


def test_an_impossible_layout_is_bad_input() -> None:
    with pytest.raises(LayoutError, match="tensor"):
        measure(request(layout="tensor=4", cluster="cpu:4"))


@given(st.lists(st.floats(0.9, 1.1), min_size=5, max_size=20))
def test_a_slow_step_moves_no_median_and_is_found(times_s: list[float]) -> None:
    result = timed(*times_s, 100.0)
    assert result.median_s is not None
    assert 0.9 <= result.median_s <= 1.1
    if result.spread_s:
        assert len(times_s) in result.outliers


def test_equal_steps_have_no_spread_and_no_outliers() -> None:
    result = timed(1.0, 1.0, 1.0)
    assert (result.median_s, result.spread_s, result.outliers) == (1.0, 0.0, ())


def test_a_good_measurement_has_a_time() -> None:
    with pytest.raises(SpecError, match="at least one step time"):
        timed()


def test_utilisation_is_that_of_the_cost_model() -> None:
    asked = request()
    predicted = estimate(asked.shape, asked.workload, asked.cluster, asked.layout)
    result = with_utilisation(timed(predicted.step_time_s))
    assert result.mfu == pytest.approx(predicted.mfu)
    assert result.hfu == pytest.approx(predicted.hfu)


@pytest.mark.parametrize(("behaviour", "code"), [("work", 0), ("exhaust", 1)])
@pytest.mark.usefixtures("stand_in")
def test_the_verb_keeps_what_it_measured(behaviour: str, code: int, tmp_path) -> None:
    (tmp_path / "model.yaml").write_text(SHAPE_YAML.format(name=behaviour))
    arguments = [
        str(tmp_path / "model.yaml"), "--cluster", "cpu:2", "--layout", "fsdp=2", "--seq-len", "32",
        "--global-batch-size", "4", "--store", str(tmp_path / "runs.db"), "--quiet", "--json",
    ]  # fmt: skip
    answer = CliRunner().invoke(command, arguments)
    assert answer.exit_code == code
    assert code == 0 or isinstance(answer.exception, MeasurementError)
    printed = json.loads(answer.stdout)
    [kept] = Store(str(tmp_path / "runs.db")).measurements()
    assert (kept.identifier, kept.status) == (printed["identifier"], printed["status"])
    assert printed["step_time_s"] == 1.0
    assert kept.mfu == pytest.approx(printed["mfu"])
