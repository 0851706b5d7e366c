"""What a twin's run says about a layout; the run itself is tested with `jaxscale.measure`."""

import dataclasses
import json

import pytest

from jaxscale.catalog import load_model
from jaxscale.cli import checks, twin
from jaxscale.cli.twin import CollectiveRow, TwinOutcome, collective_rows, sentence
from jaxscale.errors import MeasurementError
from jaxscale.measure import TwinResult, shrink
from jaxscale.types import Collective, Layout, Workload
from jaxscale.types.checks import Check

WORKLOAD = Workload(seq_len=8192, global_batch_size=128)
ASKED = (
    "twin", "llama3-8b", "--cluster", "v5p-64", "--seq-len", "8192", "--global-batch-size", "128", "--quiet",
    "--layout", "fsdp=32,remat=full",
)  # fmt: skip


def _collective(kind: str, axes: tuple[str, ...], bytes_each: float, count: float, name: str = "x") -> Collective:
    return Collective(kind=kind, axes=axes, name=name, bytes_each=bytes_each, count=count, wire_bytes=0.0)


def _result(**changes) -> TwinResult:
    result = TwinResult(
        twin=shrink(load_model("llama3-8b"), WORKLOAD, Layout(fsdp=32)), losses=(5.0, 4.0, 3.0),
        single_losses=(5.0, 4.0, 3.0), gradient_error=1e-6, collectives=(), seconds=12.0,
    )  # fmt: skip
    return dataclasses.replace(result, **changes)


def _outcome(**changes) -> TwinOutcome:
    row = CollectiveRow(
        kind="all-gather",
        axes=("fsdp",),
        predicted_bytes=64.0,
        compiled_bytes=64.0,
        predicted_calls=2.0,
        compiled_calls=2.0,
    )
    return TwinOutcome(result=_result(**changes), collectives=(row,))


def test_collectives_are_joined_by_kind_and_group() -> None:
    predicted = (
        _collective("all-gather", ("fsdp",), 100.0, 3),
        _collective("all-gather", ("fsdp",), 50.0, 2, "embedding"),
        _collective("all-reduce", ("tensor",), 8.0, 4),
    )
    compiled = (_collective("all-gather", ("fsdp",), 80.0, 5), _collective("all-reduce", ("tensor",), 16.0, 2))
    gathers, reduces = collective_rows(predicted, compiled)
    assert (gathers.predicted_bytes, gathers.compiled_bytes, gathers.predicted_calls) == (400.0, 400.0, 5.0)
    assert gathers.agrees
    assert reduces.agrees  # joined by the compiler: the same bytes in fewer calls


@pytest.mark.parametrize(
    "compiled",
    [
        (),
        (_collective("all-gather", ("fsdp",), 101.0, 3),),
        (_collective("all-gather", ("data",), 100.0, 3),),
        (_collective("all-gather", ("fsdp",), 50.0, 6),),
        (_collective("all-gather", ("fsdp",), 100.0, 3), _collective("all-to-all", ("fsdp",), 1.0, 1)),
    ],
    ids=["missing", "other bytes", "other axes", "more calls", "one too many"],
)
def test_differences_are_found(compiled: tuple[Collective, ...]) -> None:
    rows = collective_rows((_collective("all-gather", ("fsdp",), 100.0, 3),), compiled)
    assert not all(row.agrees for row in rows)


def test_a_twin_passes_if_it_trains_and_communicates_as_it_should() -> None:
    assert _outcome().passed
    assert not _outcome(gradient_error=1e-2).passed
    assert not _outcome(losses=(5.0, 4.0, 3.1)).passed
    assert "does NOT train" in sentence(_outcome(gradient_error=1e-2))


def test_the_verb_prints_losses_and_collectives(jaxscale, monkeypatch) -> None:
    monkeypatch.setattr(twin, "twin_outcome", lambda *_: _outcome())
    answer = jaxscale(*ASKED)
    assert answer.code == 0
    assert "1 of 1 kinds of collective" in " ".join(answer.out.split())
    assert max(map(len, answer.out.splitlines())) <= 80
    record = json.loads(jaxscale(*ASKED, "--json").out)
    assert record["passed"] is True
    assert record["collectives"][0]["agrees"] is True


def test_the_verb_fails_where_the_twin_does(jaxscale, monkeypatch) -> None:
    monkeypatch.setattr(twin, "twin_outcome", lambda *_: _outcome(losses=(1.0, 4.0, 3.0)))
    assert jaxscale(*ASKED).code == 2


def test_an_illegal_layout_is_refused_before_it_runs(jaxscale, monkeypatch) -> None:
    monkeypatch.setattr(twin, "twin_outcome", lambda *_: pytest.fail("it ran"))
    answer = jaxscale(*ASKED[:-1], "fsdp=3")
    assert answer.code == 2
    assert "3 devices, but there are 32" in answer.err


def test_a_twin_that_dies_has_not_passed(monkeypatch) -> None:
    def dies(*_):
        raise MeasurementError("it died")

    monkeypatch.setattr(twin, "twin_outcome", dies)
    check = twin.twin_check(load_model("llama3-8b"), WORKLOAD, Layout(fsdp=32))
    assert (check.passed, check.sentence) == (False, "it died")


def test_the_winner_is_the_first_whose_twin_passes(jaxscale, monkeypatch) -> None:
    asked: list[Layout] = []

    def checked(shape, workload, layout) -> Check:
        asked.append(layout)
        return Check(kind="twin", passed=len(asked) == 2, sentence="said", seconds=1.0)

    monkeypatch.setattr(checks, "twin_check", checked)
    answer = jaxscale(
        "search", "gpt2-124m", "--cluster", "h100-sxm:8", "--seq-len", "1024", "--global-batch-size", "16", "--quiet",
        "--json", "--check", "twin",
    )  # fmt: skip
    top = json.loads(answer.out)["top"]
    assert [layout["passed"] for layout in top] == [False, True, True]
    assert [len(layout["checks"]) for layout in top] == [1, 1, 0]
