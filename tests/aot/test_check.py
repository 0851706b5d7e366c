"""Agreement of predicted and compiled records, grids of cases, and `jaxscale check`."""

import json
import math

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import jaxscale.aot.compile as compile_module
from jaxscale.aot.agreement import compare, difference, spread, summarise
from jaxscale.cli.check import command
from jaxscale.cli.grid import cases, fill_layout, load_grid, load_grids
from jaxscale.errors import InfeasibleError, SpecError
from jaxscale.types import Estimate, Layout

GRID = """models: [pythia-70m]
clusters: ["cpu:4"]
layouts: ["fsdp=*,remat=full", "fsdp=*,tensor=4", "tensor=3"]
seq_lens: [64, 128]
"""


def record(tier="predicted", **changes) -> Estimate:
    fields = {
        "layout": Layout(fsdp=4), "step_time_s": 1.0, "lower_s": 0.5, "upper_s": 2.0, "time_parts_s": {},
        "memory_bytes": 10.0, "memory_limit_bytes": 16.0, "memory_parts_bytes": {"parameters": 2.0, "optimizer": 4.0},
        "comm_bytes": {"fsdp": 1e9}, "model_flops": 80.0, "hardware_flops": 100.0, "mfu": 0.4, "hfu": 0.5,
        "tokens_per_s_per_chip": 1.0, "dollars_per_billion_tokens": 1.0,
    }  # fmt: skip
    return Estimate(tier=tier, **(fields | changes))


def test_agreement_field_by_field():
    compiled = record(
        "compiled",
        memory_bytes=8.0,
        memory_parts_bytes={"arguments": 6.0, "temporaries": 2.0},
        hardware_flops=80.0,
        comm_bytes={"fsdp": 2e9, "data": 1e8, "data+fsdp": 4.0},
        step_time_s=0.8,
    )
    a = compare(record(), compiled)
    assert (a.memory, a.state, a.working) == pytest.approx((0.25, 0.0, 1.0))
    assert (a.flops, a.step_time, a.verdict) == pytest.approx((0.25, 0.25, True))
    assert a.communication == {"fsdp": -0.5, "data": -1.0}  # four bytes of scalars are no figure
    assert not compare(record(), record("compiled", memory_bytes=17.0)).verdict


def test_a_record_agrees_with_itself():
    same = compare(record(), record())
    assert (same.memory, same.flops, same.communication, same.step_time) == (0.0, 0.0, {"fsdp": 0.0}, 0.0)


@given(st.lists(st.floats(-2, 2), min_size=1))
def test_spreads_are_ordered_and_reached(differences):
    s = spread([*differences, math.nan])
    assert s is not None
    assert s.count == len(differences)
    assert s.median <= s.p95 <= s.largest == max(map(abs, differences))


def test_what_nobody_knows_has_no_spread():
    assert spread([math.nan]) is None
    assert summarise([])["memory"] is None
    assert difference(1.0, 0.0) == math.inf


def test_a_grid_holds_the_legal_cases(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    found = list(cases(load_grid(str(path))))
    assert [(case.layout.fsdp, case.layout.tensor, case.workload.seq_len) for case in found] == [
        (4, 1, 64), (4, 1, 128), (1, 4, 64), (1, 4, 128),
    ]  # fmt: skip
    assert {case.workload.global_batch_size for case in found} == {4, 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [(GRID + "colour: red\n", "colour"), (GRID.replace("[64, 128]", "[]"), "seq_lens is empty"), ("models: [", "YAML")],
)
def test_bad_grids_are_named(tmp_path, text, says):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=says):
        load_grid(str(path))


def test_a_folder_of_grids_is_read_in_order(tmp_path):
    (tmp_path / "b.yaml").write_text(GRID.replace("[64, 128]", "[128]"))
    (tmp_path / "a.yaml").write_text(GRID.replace("[64, 128]", "[64]"))
    assert [grid.seq_lens for grid in load_grids(str(tmp_path))] == [(64,), (128,)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match=r"holds no \.yaml file"):
        load_grids(str(tmp_path / "empty"))


def test_a_program_that_did_not_fit_has_no_flops_to_compare():
    a = compare(record(), record("compiled", memory_bytes=17.0), fitted=False)
    assert math.isnan(a.flops)
    assert a.communication == {}
    assert a.memory == pytest.approx(10.0 / 17.0 - 1.0)


def test_a_star_takes_what_is_left():
    assert fill_layout("fsdp=*,tensor=3", 8) is None
    assert fill_layout("data=2,tensor=2", 8) == Layout(data=2, tensor=2)
    with pytest.raises(SpecError, match="only one axis"):
        fill_layout("fsdp=*,data=*", 8)


@pytest.fixture
def grid_file(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compile_module, "CHILD_MODULE", "tests.aot.fake_child")
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return path


def test_check_tabulates_every_case(grid_file):
    result = CliRunner().invoke(command, ["--grid", str(grid_file), "--workers", "2"], catch_exceptions=False)
    assert "verdicts agree in 4 of 4 cases" in result.stdout
    record = json.loads(
        CliRunner().invoke(command, ["--grid", str(grid_file), "--json"], catch_exceptions=False).stdout
    )
    assert [case["status"] for case in record["cases"]] == ["compiled"] * 4
    assert record["summary"]["memory"]["count"] == 4
    assert record["cases"][0]["difference"]["flops"] is None  # the stand-in has no program


def test_a_grid_without_a_legal_case_has_no_answer(grid_file):
    grid_file.write_text(GRID.replace('"fsdp=*,remat=full", "fsdp=*,tensor=4", ', ""))
    with pytest.raises(InfeasibleError, match="no layout of the grid"):
        CliRunner().invoke(command, ["--grid", str(grid_file)], catch_exceptions=False)
