"""Sweeps: resumed, shared, and stopped at any moment, they measure each program once and lose nothing."""

import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import jaxscale.study.claims as claims_module
import jaxscale.study.sweep as sweep_module
from jaxscale.errors import MeasurementError, StoreError
from jaxscale.measure.hosts import Host
from jaxscale.study import Store, job_of, run_sweep, stored
from jaxscale.study.claims import Owner, claim, renewing, save_claimed
from jaxscale.study.pod import PodWorkers, follow
from jaxscale.study.pool import Lost, Workers
from jaxscale.types.measurement import MeasureRequest
from tests.measure.requests import request
from tests.study.records import measurement
from tests.study.tasks import quick

MODELS = tuple(f"slow-{number}" for number in range(12))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(str(tmp_path / "runs.db"))
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "POLL_S", 0.05)


def sweep(store: Store, *requests: MeasureRequest, workers: int = 1, retry: bool = False) -> list[tuple[int, str, str]]:
    """Index, source and status of every outcome."""
    with Workers(workers, quick) as pool:
        outcomes = list(run_sweep([job_of(r) for r in requests], store, pool, retry=retry))
    return [(o.index, o.source, o.measurement.status if o.measurement else "") for o in outcomes]


def sweeper(store: Store, tmp_path: Path, *models: str, workers: int = 1) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.study.sweeper", str(tmp_path / "runs.db"), str(workers), *models]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen, word: str) -> list[str]:
    assert process.stdout is not None
    return [line.split()[1] for line in process.stdout.read().splitlines() if line.startswith(word + " ")]


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_is_measured_once_is_not_measured_again(store: Store) -> None:
    requests = [request("a"), request("exhaust"), request("a", layout="data=2,params_shard=none")]
    assert sorted(sweep(store, *requests)) == [(0, "here", "ok"), (1, "here", "out_of_memory"), (2, "here", "ok")]
    assert sorted(sweep(store, *requests)) == [(0, "store", "ok"), (1, "store", "out_of_memory"), (2, "store", "ok")]
    assert len(store.rows()) == 3
    jobs = [job_of(r) for r in (*requests, request("b"))]
    assert stored(store, jobs) == [True, True, True, False]


def test_another_seed_version_or_flag_is_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    program = job_of(request()).program
    assert job_of(dataclasses.replace(request(), trace_dir="elsewhere")).program == program
    assert job_of(dataclasses.replace(request(), seed=1)).program != program
    probed = dataclasses.replace(request().cluster, name="probed", dollars_per_chip_hour=1.0)
    assert job_of(dataclasses.replace(request(), cluster=probed)).program == program
    for variable, same in (("XLA_FLAGS", False), ("JAX_COORDINATOR_ADDRESS", True)):
        with monkeypatch.context() as patched:
            patched.setenv(variable, "x:1")
            sweep_module._surroundings.cache_clear()
            assert (job_of(request()).program == program) is same
    sweep_module._surroundings.cache_clear()


def test_a_lost_worker_is_given_another_try_and_then_counts_as_a_crash(store: Store, tmp_path: Path) -> None:
    once = dataclasses.replace(request("once"), trace_dir=str(tmp_path / "marker"))
    assert sorted(sweep(store, request("die"), once, workers=2)) == [(0, "here", "crash"), (1, "here", "ok")]
    [crashed] = store.measurements(status="crash")
    assert "2 workers were lost at it; the last was killed by SIGKILL" in crashed.message


def test_crashes_are_measured_again_only_on_demand(store: Store) -> None:
    program = job_of(request("a")).program
    store.save(dataclasses.replace(quick(request("a")), status="crash", message="x"))
    assert claim(store, program, Owner()) == "done"
    assert sweep(store, request("a")) == [(0, "store", "crash")]
    assert sweep(store, request("a"), retry=True) == [(0, "here", "ok")]


def test_an_error_that_concerns_all_ends_the_sweep(store: Store) -> None:
    with pytest.raises(MeasurementError, match="no devices at all"):
        sweep(store, request("fail"), request("a"))
    assert sweep(store, request("a")) == [(0, "here", "ok")]  # nothing is left claimed


def test_a_result_that_cannot_be_saved_ends_the_sweep(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreError("store: disk full")

    monkeypatch.setattr(sweep_module, "save_claimed", full)
    with pytest.raises(StoreError, match="disk full"):
        sweep(store, request("a"))


def test_two_sweeps_on_one_store_share_the_work(store: Store, tmp_path: Path) -> None:
    first, second = (sweeper(store, tmp_path, *MODELS, workers=2) for _ in range(2))
    saved = [said(process, "saved") for process in (first, second)]
    assert (first.wait(), second.wait()) == (0, 0)
    assert sorted([*saved[0], *saved[1]]) == sorted(row["identifier"] for row in store.rows())
    assert len({row["program"] for row in store.rows()}) == len(store.rows()) == len(MODELS)
    assert store.check() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_is_stopped_loses_nothing_and_goes_on(number: int, store: Store, tmp_path: Path) -> None:
    process = sweeper(store, tmp_path, *MODELS[:4], "hang", *MODELS[4:])
    eventually(lambda: len(store.rows()) == 4)
    process.send_signal(number)
    saved = said(process, "saved")
    process.wait()
    assert set(saved) <= {row["identifier"] for row in store.rows()}
    # The claim of the dead is no obstacle.
    rest = sweep(store, *map(request, MODELS))
    assert [source for _, source, _ in sorted(rest)] == ["store"] * 4 + ["here"] * 8
    assert store.check() == []


def test_what_another_sweep_has_in_hand_is_waited_for(store: Store) -> None:
    job, other = job_of(request("slow-1")), Owner(host="elsewhere")
    assert claim(store, job.program, other) == "yours"

    def hand_in() -> None:
        save_claimed(store, quick(job.request), job.program, other)

    with Workers(1, quick) as pool:
        outcomes = run_sweep([job, job_of(request("slow-2"))], store, pool)
        assert next(outcomes).index == 1  # what is free comes first
        hand_in()
        assert [(o.index, o.source) for o in outcomes] == [(0, "store")]
    assert len(store.rows()) == 2


def test_a_claim_ends_with_its_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = Owner(), Owner(host="elsewhere")
    monkeypatch.setattr(claims_module, "LEASE_S", 0.2)
    assert claim(store, "p", theirs) == "yours"
    assert claim(store, "p", mine) == "taken"
    with renewing(store, theirs):
        time.sleep(0.5)
        assert claim(store, "p", mine) == "taken"
    assert claim(store, "p", mine) == "yours"  # given back at the end
    eventually(lambda: claim(store, "p", theirs) == "yours")  # mine has run out


def test_a_claim_of_a_dead_process_of_this_host_is_free(store: Store) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert claim(store, "p", Owner(pid=done.pid)) == "yours"
    assert claim(store, "p", Owner()) == "yours"


def test_an_idle_worker_that_was_killed_is_replaced() -> None:
    with Workers(1, quick) as pool:
        pool.submit(0, request("a"))
        [(_, first)] = pool.results(60)
        pool._workers[0].process.kill()
        pool._workers[0].process.join()
        pool.submit(1, request("b"))
        [(ticket, lost)] = pool.results(60)
        assert (ticket, isinstance(lost, Lost)) == (1, True)
        pool.submit(1, request("b"))
        [(_, second)] = pool.results(60)
    assert not isinstance(first, Lost)
    assert not isinstance(second, Lost)


def test_several_hosts_measure_together(store: Store, free_port: int) -> None:
    coordinator = f"127.0.0.1:{free_port}"
    command = (
        "from tests.study.test_sweep import *; "
        f"print(follow(Host(index=1, count=2, coordinator={coordinator!r}), quick))"
    )
    follower = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True)
    with PodWorkers(Host(index=0, count=2, coordinator=coordinator), quick) as pool:
        jobs = [job_of(request(name)) for name in ("a", "b")]
        outcomes = [(o.index, o.source) for o in run_sweep(jobs, store, pool)]
    assert outcomes == [(0, "here"), (1, "here")]
    assert follower.communicate()[0].strip() == "2"
    assert follow is not None


def test_a_host_that_ran_out_of_memory_is_the_reason_for_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = PodWorkers(Host(index=0, count=2, coordinator="h:1"), quick)
    answers = iter(['{"status": "crash", "message": "x"}', '{"status": "out_of_memory", "message": "host 2: 8 bytes"}'])
    monkeypatch.setattr("jaxscale.study.pod._read", lambda _: next(answers))
    pod._followers = [None, None]  # type: ignore[list-item]
    crashed = measurement("x", status="crash", message="the coordinator hung up", step_times_s=(), mfu=None)
    together = pod._together(crashed)
    assert not isinstance(together, Lost)
    assert (together.status, together.message) == ("out_of_memory", "host 2: 8 bytes")


@pytest.mark.slow
def test_ray_measures_one_request_a_task(store: Store) -> None:
    pytest.importorskip("ray")
    from jaxscale.study.ray_pool import RayWorkers

    requests = [request("a"), request("die"), request("b")]
    with RayWorkers(2, quick) as pool:
        outcomes = {o.index: o.measurement for o in run_sweep([job_of(r) for r in requests], store, pool)}
    assert [outcomes[index].status for index in range(3)] == ["ok", "crash", "ok"]  # type: ignore[union-attr]
    assert "was lost by Ray" in outcomes[1].message  # type: ignore[union-attr]
    assert store.check() == []
