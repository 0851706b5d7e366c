"""Compiling processes that hang, die or are not waited for; with a stand-in that needs no compiler."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import jaxscale.aot.compile as compile_module
from jaxscale.aot.cache import Cache
from jaxscale.aot.compile import compile_step, try_compile
from jaxscale.aot.pool import compile_layouts, num_workers
from jaxscale.aot.request import CompileRequest
from jaxscale.errors import CompileError, LayoutError
from tests.aot.requests import request

DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("JAXSCALE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(compile_module, "CHILD_MODULE", "tests.aot.fake_child")


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(condition) -> bool:
    """Poll, without a fixed pause that a loaded machine could outlast."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


def pids(folder: Path) -> list[int]:
    return [int(p) for file in folder.iterdir() for p in (file.name, file.read_text() or "0")]


def test_a_result_comes_back_whole():
    result = compile_step(request())
    assert (result.status, result.peak_bytes, result.fits) == ("compiled", 12.0, True)
    assert result.layout == request().layout


def test_a_hanging_compiler_is_stopped_with_all_it_started(tmp_path):
    with pytest.raises(CompileError, match="no result within 2 s"):
        compile_step(request(f"hang:{tmp_path}"), timeout_s=2.0)
    assert wait_until(lambda: not any(alive(pid) for pid in pids(tmp_path)))


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ("die", "killed by SIGKILL"),
        ("abort", "exited with code 1: unknown flag"),
        ("garble", "the result cannot be read"),
    ],
)
def test_a_dead_compiler_is_reported(behaviour, says):
    with pytest.raises(CompileError, match=says):
        compile_step(request(behaviour))
    assert try_compile(request(behaviour)).status == "failed"


def test_an_illegal_layout_is_refused_before_any_process_starts():
    with pytest.raises(LayoutError, match="microbatch"):
        compile_step(request("hang", microbatch_size=3))


def test_a_second_request_compiles_nothing(tmp_path):
    cache = Cache(tmp_path / "cache")
    mark = tmp_path / "started"
    mark.mkdir()
    asked = request(f"ok:{mark}")
    first = compile_step(asked, cache=cache)
    assert (first.cached, len(list(mark.iterdir()))) == (False, 1)
    second = compile_step(asked, cache=cache)
    assert (second.cached, len(list(mark.iterdir()))) == (True, 1)
    assert dataclasses.replace(second, cached=False) == first


def test_a_whole_answer_serves_a_quick_request(tmp_path, monkeypatch):
    """A quick compile of a TPU step has a key of its own; elsewhere the two are one."""
    cpu = request("ok")
    assert dataclasses.replace(cpu, quick=True).key() == cpu.key()
    monkeypatch.setattr(CompileRequest, "stops_early", property(lambda self: self.quick))
    cache, quick = Cache(tmp_path), dataclasses.replace(cpu, quick=True)
    assert quick.key() != cpu.key()
    compile_step(cpu, cache=cache)
    assert compile_step(quick, cache=cache).cached


def test_failures_are_not_kept(tmp_path):
    cache = Cache(tmp_path)
    try_compile(request("die"), cache=cache)
    assert cache.info().num_entries == 0


def test_a_pool_yields_every_result_and_survives_a_dead_one():
    illegal = request("ok", microbatch_size=3)
    asked = [request("ok"), request("die"), illegal, request("ok", remat="none")]
    results = dict(compile_layouts(asked, workers=2))
    assert [results[i].status for i in range(4)] == ["compiled", "failed", "failed", "compiled"]


def test_leaving_a_pool_early_kills_the_rest(tmp_path):
    asked = [request("ok"), *(request(f"hang:{tmp_path}") for _ in range(3))]
    for index, _ in compile_layouts(asked, workers=2):
        assert index == 0
        assert wait_until(lambda: len(pids(tmp_path)) >= 2)
        break
    assert wait_until(lambda: not any(alive(pid) for pid in pids(tmp_path)))
    assert len(list(tmp_path.iterdir())) <= 2  # the last was never started


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel to kill orphans")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_search_leaves_no_process(tmp_path, how):
    script = textwrap.dedent(f"""
        import signal
        import jaxscale.aot.compile as c
        from jaxscale.aot.pool import compile_layouts
        from tests.aot.requests import request
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        c.CHILD_MODULE = "tests.aot.orphan_child"
        list(compile_layouts([request("hang:{tmp_path}")] * 2, workers=2))
    """)
    searching = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: len(pids(tmp_path)) >= 2)
        searching.send_signal(how)
        searching.wait(DEADLINE_S)
        assert wait_until(lambda: not any(alive(int(file.name)) for file in tmp_path.iterdir()))
    finally:
        searching.kill()


def test_workers_are_bounded_by_memory_and_cores():
    gib = 2.0**30
    assert num_workers(available_bytes=64 * gib, cores=2) == 2
    assert num_workers(available_bytes=7 * gib, cores=8) == 2
    assert num_workers(available_bytes=1 * gib, cores=8) == 1


def test_too_little_memory_is_said_before_a_compile_starts(monkeypatch):
    monkeypatch.setattr(compile_module, "available_memory_bytes", lambda: 2.0**28)
    with pytest.raises(CompileError, match=r"256\.0 MiB of memory are free"):
        compile_step(request("hang"))
