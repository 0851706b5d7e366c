"""`jaxscale sweep` as a user meets it: the file's errors, the plan, and what came of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import jaxscale.cli.sweep as sweep_module
from jaxscale.cli.sweep_points import points_of
from jaxscale.cli.sweep_spec import Best, combinations, load_sweep
from jaxscale.errors import JaxscaleError
from jaxscale.study import Store
from jaxscale.study.pool import Workers
from tests.study.tasks import quick

TINY = """name: {name}
num_layers: 2
d_model: 32
num_heads: 4
num_kv_heads: 4
head_dim: 8
d_ff: 64
vocab_size: 128
"""
SWEEP = """models: [tiny.yaml]
clusters: ["cpu:4"]
workloads: {seq_len: [32, 64], global_batch_size: 8, precision: fp32}
layouts: ["fsdp=*", "fsdp=*,tensor=2", "data=3,fsdp=*"]
measure: {steps: 2, warmup: 1, timeout: 2 min}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY.format(name="tiny"))
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run: a stand-in says what it took."""
    monkeypatch.setattr(sweep_module, "_pool", lambda *_: Workers(1, quick))


def spec(folder: Path, **changes: str) -> Path:
    """The sweep with some sections written anew; an empty one is left out."""
    lines = [line for line in SWEEP.splitlines() if line.partition(":")[0] not in changes]
    path = folder / "other.yaml"
    path.write_text("\n".join([*lines, *(f"{name}: {text}" for name, text in changes.items() if text)]) + "\n")
    return path


def layouts(path: Path) -> list[str]:
    return [str(point.request.layout) for point in points_of(load_sweep(path))[0]]


def test_every_combination_that_can_run_is_a_point(folder: Path) -> None:
    points, skipped = points_of(load_sweep(folder / "sweep.yaml"))
    assert [(p.request.workload.seq_len, p.request.layout.tensor) for p in points] == [
        (32, 1), (32, 2), (64, 1), (64, 2)
    ]  # fmt: skip
    assert [s.what.rpartition(": ")[2] for s in skipped] == ["data=3,fsdp=*"] * 2
    assert "cannot be filled on 4 devices" in skipped[0].why
    assert {(p.request.num_steps, p.request.num_warmup_steps) for p in points} == {(2, 1)}


def test_layouts_as_a_grid_and_as_the_best_predicted(folder: Path) -> None:
    grid = spec(folder, layouts='{grid: {tensor: [1, 2], fsdp: "*", remat: [none, full]}}')
    assert len(layouts(grid)) == 8
    best = spec(folder, layouts='{best: 3, limits: "tensor<=1"}')
    cell = load_sweep(best).cells[0]
    assert cell.layouts == Best(best=3, limits=("tensor<=1",))
    points, _ = points_of(load_sweep(best))
    assert len(points) == 6
    assert all(p.request.layout.tensor == 1 for p in points)
    times = [p.predicted.step_time_s for p in points[:3]]
    assert times == sorted(times)


def test_models_with_fields_changed_and_seeds(folder: Path) -> None:
    path = spec(
        folder, models="[{base: tiny.yaml, d_ff: [64, 96]}, {base: tiny.yaml, num_heads: 2, num_kv_heads: 2}]",
        layouts='["fsdp=*"]', measure="{seeds: [0, 1]}",
    )  # fmt: skip
    points, _ = points_of(load_sweep(path))
    names = [point.request.shape.name for point in points]
    assert sorted(set(names)) == ["tiny(d_ff=64)", "tiny(d_ff=96)", "tiny(num_heads=2,num_kv_heads=2)"]
    assert len(points) == 3 * 2 * 2


def test_runs_one_by_one_and_no_point_twice(folder: Path) -> None:
    row = '{model: tiny.yaml, cluster: "cpu:4", workload: {seq_len: 32, global_batch_size: 8}, layout: "fsdp=4"}'
    path = folder / "runs.yaml"
    path.write_text(f"runs: [{row}, {row}]\n")
    assert layouts(path) == ["fsdp=4,microbatch_size=1,remat=full"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ""}, r"models missing or empty; a sweep has models, clusters, workloads, layouts"),
        ({"modles": "[a]"}, r"'modles' is unknown; known: .*Did you mean models"),
        ({"models": "[tini]"}, r"tini"),
        ({"models": "[{base: tiny.yaml, d_f: 3}]"}, r"models\[0\]: 'd_f' is unknown.*Did you mean d_ff"),
        ({"models": "[{base: tiny.yaml, d_ff: wide}]"}, r"models\[0\]: d_ff='wide' must be a whole number"),
        ({"models": "[7]"}, r"models\[0\] must be text, got a number"),
        ({"clusters": '["cpuu:4"]'}, r"cluster 'cpuu:4' is unknown"),
        ({"workloads": "{seq_len: 32}"}, r"workloads\[0\]: global_batch_size missing"),
        ({"workloads": "{seq_len: [], global_batch_size: 8}"}, r"workloads\[0\]: seq_len is an empty list"),
        ({"workloads": "{seq_len: 32, global_batch_size: 8, precision: fp64}"}, r"precision='fp64' is not one of"),
        ({"layouts": '["fsdp=4,tensr=2"]'}, r"layouts\[0\]: layout: 'tensr' is unknown.*Did you mean tensor"),
        ({"layouts": '["fsdp=*,tensor=*"]'}, r"layouts\[0\]: .*only one axis can be \*"),
        ({"layouts": "{best: 0}"}, r"layouts: best=0 must be between 1 and"),
        ({"layouts": "{bets: 3}"}, r"layouts: 'bets' is unknown.*Did you mean best"),
        ({"layouts": "{grid: {remat: [half]}}"}, r"layouts: grid: .*remat='half' is not one of"),
        ({"measure": "{steps: 0}"}, r"measure: steps=0 must be between 1"),
        ({"measure": "{timeout: 10}"}, r"measure: timeout=10 has no unit"),
        ({"measure": "{timeout: 0 s}"}, r"measure: timeout_s=0.0 must be above zero"),
        ({"runs": "[{model: tiny.yaml}]"}, r"runs\[0\]: cluster, workload, layout missing"),
        ({"layouts": '["data=3"]'}, r"none of 2 combinations can run; the first: tiny on cpu:4"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    changes: dict[str, str], message: str, folder: Path, jaxscale: Callable
) -> None:
    answer = jaxscale("sweep", str(spec(folder, **changes)), "--dry-run")
    assert answer.code in (2, 3)
    with pytest.raises(JaxscaleError, match=message):
        raise JaxscaleError(answer.err)


def test_a_grid_has_a_limit() -> None:
    with pytest.raises(JaxscaleError, match="1000000 combinations; at most 100000"):
        combinations({"a": list(range(1000)), "b": list(range(1000))}, where="x")


def test_a_dry_run_makes_nothing(folder: Path, jaxscale: Callable) -> None:
    answer = jaxscale("sweep", str(folder / "sweep.yaml"), "--dry-run")
    assert answer.code == 0
    assert "4 measurements to make, 0 in the store already" in answer.out
    assert "2 combinations cannot run" in answer.out
    assert max(map(len, answer.out.splitlines()[:8])) <= 80
    told = json.loads(jaxscale("sweep", str(folder / "sweep.yaml"), "--dry-run", "--json").out)
    assert [point["in_store"] for point in told["points"]] == [False] * 4
    assert all(point["predicted_s"] > 0 for point in told["points"])
    assert sorted(path.name for path in folder.iterdir()) == ["sweep.yaml", "tiny.yaml"]


@pytest.mark.usefixtures("quickly")
def test_a_sweep_fills_the_store_and_goes_on(folder: Path, jaxscale: Callable) -> None:
    answer = jaxscale("sweep", str(folder / "sweep.yaml"), "--quiet")
    assert answer.code == 0
    assert "4 measurements made (4 ok), 0 were in" in answer.out
    told = json.loads(jaxscale("sweep", str(folder / "sweep.yaml"), "--quiet", "--json").out)
    assert (told["points"], told["in_store"], told["outcomes"], told["interrupted"]) == (4, 4, {}, False)
    assert len(told["runs"]) == 4
    assert len(Store(str(folder / "sweep.db")).rows()) == 4
    assert "0 measurements to make, 4 in the store" in jaxscale("sweep", str(folder / "sweep.yaml"), "--dry-run").out


@pytest.mark.usefixtures("quickly")
def test_an_interrupt_keeps_what_there_is(folder: Path, jaxscale: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    note, noted = sweep_module._note, []

    def interrupting(*arguments: object) -> None:
        note(*arguments)  # type: ignore[arg-type]
        noted.append(arguments)
        if len(noted) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(sweep_module, "_note", interrupting)
    answer = jaxscale("sweep", str(folder / "sweep.yaml"), "--quiet")
    assert answer.code == 130
    assert "stopped with 2 to go; what was measured is kept" in answer.out
    assert len(Store(str(folder / "sweep.db")).rows()) == 2


def test_real_devices_are_measured_one_at_a_time(folder: Path, jaxscale: Callable) -> None:
    path = spec(folder, clusters='["h100-sxm:4"]')
    answer = jaxscale("sweep", str(path), "--workers", "2")
    assert answer.code == 2
    assert "--workers=2: the devices of h100-sxm:4 run one measurement at a time" in answer.err
