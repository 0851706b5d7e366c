"""`jaxscale explore`: what keys do to a layout, on a screen of 80 columns by 24 rows."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from textual.widgets import Static

from jaxscale.calibrate import own_stack
from jaxscale.catalog import load_cluster, load_model
from jaxscale.cli.explorer.app import Explorer
from jaxscale.cli.explorer.moves import FIELDS, Problem, alternatives, changed, point, stepped, values
from jaxscale.cost import estimate
from jaxscale.types import Layout, Workload, parse_layout

PROBLEM = Problem(
    shape=load_model("llama3-8b"),
    workload=Workload(seq_len=8192, global_batch_size=128),
    cluster=load_cluster("v5p-64"),
)
START = parse_layout("fsdp=8,tensor=4,remat=full")


def played(*keys: str, look: Callable[[Explorer], None] = lambda app: None, layout: Layout = START) -> Explorer:
    """Press keys on a small screen, then look at it."""
    app = Explorer(PROBLEM, layout)

    async def play() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press(*keys)
            await pilot.pause()
            look(app)

    asyncio.run(play())
    return app


def shown(app: Explorer, name: str) -> str:
    return str(app.query_one(f"#{name}", Static).render())


def to(field: str) -> tuple[str, ...]:
    return ("down",) * FIELDS.index(field)


def test_an_axis_takes_its_devices_from_fsdp() -> None:
    app = played(*to("tensor"), "right")
    assert (app.here.layout.tensor, app.here.layout.fsdp) == (8, 4)
    assert app.here.layout.num_devices == 32


def test_time_and_memory_move_at_once() -> None:
    stack = own_stack(PROBLEM.cluster, PROBLEM.workload)
    layout = parse_layout("fsdp=16,tensor=2,remat=full")
    expected = estimate(PROBLEM.shape, PROBLEM.workload, PROBLEM.cluster, layout, stack)
    said: list[str] = []
    app = played(*to("tensor"), "left", look=lambda app: said.append(shown(app, "figures")))
    assert app.here.estimate is not None
    assert app.here.estimate.layout == expected.layout
    assert "step time" in said[0]
    assert f"{expected.mfu:.1%}" in said[0]
    assert "memory +" in said[0] or "memory -" in said[0]  # what the move changed


def test_what_cannot_run_is_explained_and_can_be_taken_back() -> None:
    said: list[str] = []
    look = lambda app: said.append(shown(app, "figures"))  # noqa: E731
    app = played(*to("tensor"), "right", "right", look=look)
    assert app.here.estimate is None
    assert "cannot run" in said[0]
    assert "tensor=16 does not divide num_kv_heads=8" in " ".join(said[0].split())
    assert played(*to("tensor"), "right", "right", "u", "u", "u").here.layout == START


def test_every_field_can_be_changed_and_started_over() -> None:
    layouts: set[Layout] = set()
    app = Explorer(PROBLEM, START)

    async def play() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            for field in FIELDS:
                assert app.field == field
                await pilot.press("right", "left", "right")
                layouts.add(app.here.layout)
                await pilot.press("r", "down")
                assert app.here.layout == START

    asyncio.run(play())
    assert len(layouts) > len(FIELDS) / 2


def test_the_ends_of_a_list_are_said() -> None:
    said: list[str] = []
    app = played(*to("data"), "left", look=lambda app: said.append(shown(app, "said")))
    assert app.here.layout == START
    assert "data has no lower value here." in said[0]


def test_copy_shows_the_layout_as_it_is_typed() -> None:
    said: list[str] = []
    app = played("c", look=lambda app: said.append(shown(app, "said")))
    assert parse_layout(said[0]) == START
    assert app.clipboard == str(START)


def test_q_leaves_with_the_layout() -> None:
    app = played(*to("remat"), "left", "q")
    assert app.return_value == app.here.layout != START


def test_all_of_it_is_seen_in_eighty_by_twenty_four() -> None:
    def look(app: Explorer) -> None:
        for name in ("heading", "fields", "figures", "choices", "said"):
            box = app.query_one(f"#{name}", Static)
            lines = shown(app, name).rstrip().splitlines()
            assert len(lines) <= box.size.height, name
            assert max(map(len, lines), default=0) <= box.size.width or name in ("said", "choices"), name
        assert app.query_one("Footer").region.bottom <= 24

    played(*to("microbatch_size"), "right", look=look)


def test_reasons_are_wrapped_not_cut() -> None:
    seen: list[str] = []
    played(*to("tensor"), "right", "right", look=lambda app: seen.append(app.export_screenshot()))
    assert "divisors" in seen[0]


def test_a_move_keeps_shards_nested_and_devices_as_many() -> None:
    for field in FIELDS:
        for value in values(PROBLEM, START, field):
            layout = changed(PROBLEM, START, field, value)
            assert getattr(layout, field) == value
    whole = changed(PROBLEM, START, "optimizer_shard", "none")
    assert (whole.params_shard, whole.grads_shard, whole.optimizer_shard) == ("none", "none", "none")
    assert stepped(PROBLEM, START, "fsdp", 1).data == 1


def test_choices_are_predictions() -> None:
    for value, there in alternatives(PROBLEM, START, "tensor"):
        assert there == point(PROBLEM, changed(PROBLEM, START, "tensor", value))


def test_without_a_terminal_it_says_so(jaxscale) -> None:
    answer = jaxscale("explore", "llama3-8b", "--cluster", "v5p-64", "--seq-len", "8192", "--global-batch-size", "128")
    assert answer.code == 2
    assert "needs a terminal" in answer.err


def test_textual_is_loaded_by_nothing_else() -> None:
    code = "import sys, jaxscale.cli.explore, jaxscale.cli; print('textual' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_in_a_terminal_it_prints_the_layout_that_was_left(tmp_path) -> None:
    """As a user runs it: a pseudo-terminal for keys and screen, a pipe for the answer."""
    import os
    import pty

    master, slave = pty.openpty()
    command = [
        sys.executable, "-m", "jaxscale", "explore", "llama3-8b", "--cluster", "v5p-64", "--seq-len", "8192",
        "--global-batch-size", "128", "--layout", str(START), "--json",
    ]  # fmt: skip
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    ran = subprocess.Popen(command, stdin=slave, stderr=slave, stdout=subprocess.PIPE, env=environment, text=True)
    os.close(slave)
    screen = b""
    while b"step time" not in screen:
        screen += os.read(master, 65536)
    os.write(master, b"q")
    out, _ = ran.communicate(timeout=60)
    os.close(master)
    assert ran.returncode == 0
    assert json.loads(out)["layout"]["tensor"] == 4
