"""`jaxscale tune` end to end on a pool that answers at once: no step is run."""

import contextlib
import itertools
import json
from collections.abc import Sequence

import numpy as np
import pytest
from click.testing import CliRunner, Result

from jaxscale.cli import tune as tune_module
from jaxscale.cli.tune import command
from jaxscale.errors import InfeasibleError, MeasurementError, SpecError
from jaxscale.measure.surroundings import look_around
from jaxscale.study import Store
from jaxscale.study.tuning.candidates import features
from jaxscale.types import Layout
from jaxscale.types.measurement import Measurement, MeasureRequest

SHAPE_YAML = """name: tiny
num_layers: 4
d_model: 64
num_heads: 8
num_kv_heads: 8
head_dim: 8
d_ff: 128
vocab_size: 256
"""


class Pool:
    """Stands in for worker processes: times by a formula, and tensor=8 runs out of memory."""

    def __init__(self) -> None:
        self.asked: list[Layout] = []
        self._done: list[tuple[int, Measurement]] = []
        self._number = itertools.count()

    @property
    def free(self) -> int:
        return 4 - len(self._done)

    @property
    def busy(self) -> int:
        return len(self._done)

    def submit(self, ticket: int, request: MeasureRequest) -> None:
        self.asked.append(request.layout)
        self._done.append((ticket, self._measured(request)))

    def results(self, timeout_s: float) -> Sequence[tuple[int, Measurement]]:
        done, self._done = self._done, []
        return done

    def _measured(self, request: MeasureRequest) -> Measurement:
        fails = request.layout.tensor == 8
        seconds = 0.1 * float(np.exp(0.1 * features([request.layout])[0].sum()))
        return Measurement(
            identifier=f"{next(self._number):032x}",
            started_at=f"2026-01-01T00:00:{len(self.asked):02d}+00:00",
            request=request,
            status="out_of_memory" if fails else "ok",
            message="RESOURCE_EXHAUSTED" if fails else "",
            step_times_s=() if fails else (seconds,),
            surroundings=look_around({"JAX_PLATFORMS": "cpu"}),
        )


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    made = Pool()
    monkeypatch.setattr(
        tune_module._Lab, "pool", lambda self, workers, timeout_s: contextlib.nullcontext(made)
    )  # fmt: skip
    return made


def run(folder, *more: str) -> Result:
    (folder / "tiny.yaml").write_text(SHAPE_YAML)
    arguments = [
        str(folder / "tiny.yaml"), "--cluster", "cpu:8", "--seq-len", "64", "--global-batch-size", "8", "--quiet",
        "--limit", "remat=none,offload_optimizer=false,microbatch_size=1,zero=3", *more,
    ]  # fmt: skip
    return CliRunner().invoke(command, arguments)


def test_it_measures_few_and_says_what_it_learned(pool: Pool, tmp_path) -> None:
    answer = run(tmp_path, "--budget-runs", "8", "--min-gain", "0", "--json", "--store", str(tmp_path / "runs.db"))
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    times = [row["step_time_s"] for row in found["runs"] if row["step_time_s"]]
    assert found["stopped"] == "budget"
    assert len(found["runs"]) == len(pool.asked) == 8
    assert found["best"]["step_time_s"] == min(times)
    assert found["num_candidates"] > 50
    assert found["predictor"]["scale"] > 0
    assert len(Store(str(tmp_path / "runs.db")).rows()) == 8


def test_the_same_command_goes_on(pool: Pool, tmp_path) -> None:
    store = ("--store", str(tmp_path / "runs.db"), "--min-gain", "0", "--json")
    run(tmp_path, "--budget-runs", "3", *store)
    found = json.loads(run(tmp_path, "--budget-runs", "5", *store).stdout)
    assert found["runs_from_store"] == 3
    assert len(found["runs"]) == 5
    assert len(pool.asked) == len(set(pool.asked)) == 5


def test_tables_and_report(pool: Pool, tmp_path) -> None:
    answer = run(tmp_path, "--budget-runs", "5", "--report", str(tmp_path / "tuned.html"), "--workers", "2")
    assert answer.exit_code == 0, answer.output
    assert "layouts were measured" in answer.stdout
    assert "Measured over predicted" in answer.stdout
    assert "runs fastest with" in (tmp_path / "tuned.html").read_text()


@pytest.mark.usefixtures("pool")
def test_nothing_runs(tmp_path) -> None:
    answer = run(tmp_path, "--limit", "tensor=8", "--budget-runs", "2", "--json")
    assert isinstance(answer.exception, MeasurementError)
    found = json.loads(answer.stdout)
    assert found["best"] is None
    assert found["runs"][0]["message"].startswith("out_of_memory")


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        (("--limit", "tensor=3"), InfeasibleError, "no layout"),
        (("--cluster", "h100-sxm:8", "--workers", "2"), SpecError, "--workers=2|one cluster"),
        (("--report", "/nowhere/r.html"), SpecError, "does not exist"),
    ],
)
def test_bad_input(more: tuple[str, ...], error: type[Exception], words: str, pool: Pool, tmp_path) -> None:
    answer = run(tmp_path, *more)
    assert isinstance(answer.exception, error), answer.output
    assert words.split("|")[0] in str(answer.exception) or words.split("|")[-1] in str(answer.exception)
    assert pool.asked == []
