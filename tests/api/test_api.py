"""The Python API: names load when used, answers become tables and reports, inputs may be names or values."""

import json
import subprocess
import sys
import typing
from pathlib import Path

import pandas
import pytest

import jaxscale
from jaxscale import explain_layout, export_layout, plan_run, predict_step, search_layouts, validate_runs
from jaxscale.api.result import Result
from jaxscale.api.tables import of_one_stack
from jaxscale.cost import estimate
from jaxscale.errors import JaxscaleError, LayoutError, SpecError
from jaxscale.types import parse_layout

from .examples import WORKLOAD, compilation, runs_table, stack_calibration, step_measurement

HEAVY = ("numpy", "jax", "pandas", "plotly", "jinja2", "click")


def _loaded_after(code: str) -> list[str]:
    """Which of the heavy packages a program has loaded at its end."""
    program = f"import sys\n{code}\nprint(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_loads_nothing_and_predicting_no_jax() -> None:
    assert _loaded_after("import jaxscale; dir(jaxscale)") == []
    code = (
        "from jaxscale import Workload, predict_step\n"
        "predict_step('gpt2-774m', Workload(seq_len=2048, global_batch_size=32), 'h100-sxm:8', 'fsdp=8')"
    )
    assert _loaded_after(code) == ["numpy"]


def test_every_name_is_there_documented_and_typed() -> None:
    for name in jaxscale.__all__:
        value = getattr(jaxscale, name)
        if name == "__version__":
            continue
        assert value.__doc__, name
        assert name in dir(jaxscale)
        if not isinstance(value, type):
            hints = typing.get_type_hints(value, include_extras=True)
            assert "return" in hints, name
    assert 10 <= len(jaxscale.__all__) <= 16


def test_a_wrong_name_is_told_the_nearest() -> None:
    with pytest.raises(AttributeError, match="Did you mean predict_step"):
        jaxscale.predict_stp  # noqa: B018


def test_names_and_values_say_the_same() -> None:
    by_name = predict_step("gpt2-774m", WORKLOAD, "h100-sxm:8", "fsdp=8,remat=dots")
    by_value = predict_step(
        jaxscale.load_model("gpt2-774m"), WORKLOAD, jaxscale.load_cluster("h100-sxm:8"),
        parse_layout("fsdp=8,remat=dots"),
    )  # fmt: skip
    assert by_name == by_value
    about = by_name.subject
    same = estimate(about.shape, about.workload, about.cluster, parse_layout("fsdp=8,remat=dots"), about.stack)
    assert by_name.estimate == same


def test_a_prediction_is_one_flat_row() -> None:
    prediction = predict_step("gpt2-774m", WORKLOAD, "h100-sxm:8", "fsdp=8")
    frame = prediction.to_pandas()
    e = prediction.estimate
    assert len(frame) == 1
    assert frame.step_time_s[0] == e.step_time_s
    assert frame.filter(regex=r"^time_.*_s$").sum(axis=1)[0] == pytest.approx(e.step_time_s)
    assert frame.filter(regex=r"^memory_(?!bytes|limit).*_bytes$").sum(axis=1)[0] == pytest.approx(e.memory_bytes)
    assert frame.fsdp[0] == 8


def test_a_ranking_as_a_table_is_in_its_order() -> None:
    ranking = search_layouts("gpt2-774m", WORKLOAD, "h100-sxm:8", limits=["tensor<=2"], top=5)
    frame = ranking.to_pandas()
    assert frame["rank"].dropna().tolist() == list(range(1, len(ranking.search.ranked) + 1))
    assert frame.step_time_s[0] == ranking.top[0].step_time_s
    assert frame.tensor.max() <= 2
    assert frame.on_pareto_front.sum() == len({e.layout for e in ranking.search.pareto})
    assert frame.layout.is_unique


def test_an_explanation_speaks_and_counts_gains() -> None:
    explained = explain_layout("gpt2-774m", WORKLOAD, "h100-sxm:8", "fsdp=2,tensor=4", against="fsdp=8")
    frame = explained.to_pandas()
    assert str(explained).startswith("What it does\n")
    assert "Against the other layout" in explained.sections
    assert (frame.gain_s + frame.step_time_s).to_numpy() == pytest.approx(explained.estimate.step_time_s)


def test_a_plan_is_a_table_of_what_else_the_money_buys() -> None:
    planned = plan_run("8xh100-sxm for 3 days")
    frame = planned.to_pandas()
    assert {"params", "tokens", "loss", "training_dollars", "lifetime_dollars"} <= set(frame.columns)
    assert str(planned).startswith("Train ")
    assert (frame.on_training_front | frame.on_lifetime_front).all()


def test_runs_are_validated_into_a_table(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(runs_table())
    validated = validate_runs(tmp_path / "runs.csv")
    frame = validated.to_pandas()
    assert len(frame) == 3
    assert frame.error.abs().median() == pytest.approx(validated.scores[-1].median_error)
    assert len(validated.refusals) == 1


def test_a_layout_is_exported() -> None:
    made = export_layout("gpt2-774m", WORKLOAD, "h100-sxm:8", "fsdp=8", "torchtitan")
    assert "data_parallel_shard_degree = 8" in made.text
    with pytest.raises(SpecError, match="Did you mean megatron"):
        export_layout("gpt2-774m", WORKLOAD, "h100-sxm:8", "fsdp=8", "megatorn")


def _answers() -> list[Result]:
    return [
        predict_step("gpt2-774m", WORKLOAD, "h100-sxm:8", "fsdp=8"),
        search_layouts("gpt2-774m", WORKLOAD, "h100-sxm:8", top=2),
        explain_layout("gpt2-774m", WORKLOAD, "h100-sxm:8", "fsdp=8"),
        plan_run(flops=1e21),
        compilation(),
        step_measurement(),
    ]


@pytest.mark.parametrize("answer", _answers(), ids=lambda answer: type(answer).__name__)
def test_every_answer_is_a_table_a_record_a_report_and_a_notebook_output(answer: Result, tmp_path: Path) -> None:
    assert isinstance(answer.to_pandas(), pandas.DataFrame)
    assert len(answer.to_pandas()) == len(answer.rows()) > 0
    json.dumps(answer.to_json())
    shown = answer._repr_html_()
    assert shown.startswith('<div class="jaxscale">')
    assert "<script" not in shown
    written = answer.write_report(tmp_path / "report.html")
    assert written.read_text().startswith("<!doctype html>")
    figures = answer.figures()
    assert figures
    assert all("@" not in json.dumps(figure.to_plotly_json(), default=str) for figure in figures.values())


def test_a_calibration_is_a_table_of_constants_and_a_file(tmp_path: Path) -> None:
    fitted = stack_calibration(tmp_path)
    frame = fitted.to_pandas()
    assert set(frame.constant) == set(fitted.calibration.fitted)
    assert (frame.low_80 < frame.high_80).all()
    again = validate_runs(tmp_path / "runs.csv", calibrations=[fitted.write_yaml(tmp_path / "mine.yaml")])
    assert again.predictions.step_time_s == pytest.approx(
        validate_runs(tmp_path / "runs.csv", calibrations=[fitted.calibration]).predictions.step_time_s, rel=1e-4
    )
    assert "constants" in fitted.figures()
    with pytest.raises(SpecError, match="no such run"):
        of_one_stack(fitted.runs, None, "pax")


def test_steps_of_a_measurement_keep_their_order() -> None:
    frame = step_measurement().to_pandas()
    assert frame.warmup.tolist() == [True, True] + [False] * 6
    assert frame[frame.outlier].seconds.tolist() == [3.0]
    assert frame.loss.dropna().tolist() == [9.0, 8.0, 7.0]


def test_a_report_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    prediction = predict_step("gpt2-774m", WORKLOAD, "h100-sxm:8", "fsdp=8")
    with pytest.raises(SpecError, match="cannot be written"):
        prediction.write_report(tmp_path / "none" / "report.html")


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: predict_step("gpt2-774", WORKLOAD, "h100-sxm:8", "fsdp=8"), JaxscaleError, "gpt2-774m"),
        (lambda: predict_step("gpt2-774m", WORKLOAD, "h100:8", "fsdp=8"), JaxscaleError, "h100-sxm"),
        (lambda: predict_step("gpt2-774m", WORKLOAD, "h100-sxm:8", "fsdp=3"), LayoutError, "8"),
        (lambda: plan_run("a lot"), SpecError, "not understood"),
        (lambda: plan_run("8xh100-sxm for 3 days", cluster="v5p-16"), SpecError, "names the cluster already"),
        (lambda: validate_runs("nowhere.csv"), SpecError, "cannot be read"),
    ],
)
def test_bad_input_is_refused_in_words(call, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call()


def test_nothing_fits_is_an_answer_without_a_report() -> None:
    ranking = search_layouts("gpt3-175b", WORKLOAD, "v5e-16")
    assert ranking.top == ()
    with pytest.raises(SpecError, match="no layout of gpt3-175b fits"):
        ranking.page()
