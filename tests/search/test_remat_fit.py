"""Fitting remat policies: the integer program against every policy there is, and the fit against the cost model."""

import itertools
import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.catalog import load_cluster, load_model
from jaxscale.cli import cli
from jaxscale.cost import estimate, problem
from jaxscale.cost.inventory import LAYER_INPUT
from jaxscale.errors import InfeasibleError, LayoutError
from jaxscale.search.remat_fit import OpPrice, fit_remat, op_prices, solve
from jaxscale.types import REMAT_POLICIES, Workload, parse_layout
from jaxscale.types.remat import saveable_ops

HOST_BYTES_PER_S = 10.0


@st.composite
def layers(draw: st.DrawFn) -> list[OpPrice]:
    """A random layer of up to six ops, each with inputs among the ones before it."""
    names = draw(st.permutations(sorted(saveable_ops())))[: draw(st.integers(1, 6))]
    ops = []
    for i, name in enumerate(names):
        before = [LAYER_INPUT, *names[:i]]
        ops.append(
            OpPrice(
                name=name,
                inputs=tuple(draw(st.sets(st.sampled_from(before), min_size=1, max_size=2))),
                needs=tuple(draw(st.sets(st.sampled_from([*before, name]), max_size=2))),
                forward_s=draw(st.integers(0, 20)) * 0.5,
                saved_bytes=draw(st.integers(1, 20)) * 1.0,
            )
        )
    return ops


def cost_of(ops: list[OpPrice], saved: set[str], offloaded: set[str]) -> float:
    """Seconds that a choice costs, by walking the graph: recompute whatever is needed and not kept."""
    by_name = {op.name: op for op in ops}
    pending, again = [t for op in ops for t in op.needs], set()
    while pending:
        tensor = pending.pop()
        if tensor != LAYER_INPUT and tensor not in saved | offloaded | again:
            again.add(tensor)
            pending.extend(by_name[tensor].inputs)
    copies_s = sum(by_name[t].saved_bytes for t in offloaded) / HOST_BYTES_PER_S
    return sum(by_name[t].forward_s for t in again) + 2.0 * max(0.0, copies_s - sum(op.forward_s for op in ops))


@settings(deadline=None, max_examples=40)
@given(ops=layers(), share=st.floats(0.0, 1.0))
def test_no_policy_is_better_than_the_one_found(ops: list[OpPrice], share: float) -> None:
    budget = share * sum(op.saved_bytes for op in ops)
    saved, offloaded = solve(ops, budget, HOST_BYTES_PER_S)
    assert sum(op.saved_bytes for op in ops if op.name in saved) <= budget * (1.0 + 1e-6) + 1e-6
    best = min(
        cost_of(ops, {o.name for o, w in zip(ops, where, strict=True) if w == 1},
                {o.name for o, w in zip(ops, where, strict=True) if w == 2})
        for where in itertools.product(range(3), repeat=len(ops))
        if sum(o.saved_bytes for o, w in zip(ops, where, strict=True) if w == 1) <= budget
    )  # fmt: skip
    assert cost_of(ops, set(saved), set(offloaded)) == pytest.approx(best, abs=1e-5)


CASES = [
    ("llama3-8b", "v5e-64", 8192, 128, "fsdp=64"),
    ("llama3-70b", "h100-sxm:64", 8192, 64, "fsdp=8,tensor=8,sp=true"),
    ("mixtral-8x7b", "v5p-128", 4096, 256, "fsdp=16,expert=4"),
]


@pytest.mark.parametrize(("model", "cluster", "seq_len", "batch", "layout"), CASES)
def test_a_fit_is_at_least_as_fast_as_every_named_policy(model, cluster, seq_len, batch, layout):
    shape, where = load_model(model), load_cluster(cluster)
    workload = Workload(seq_len=seq_len, global_batch_size=batch)
    fit = fit_remat(shape, workload, where, parse_layout(layout))
    limit = (1.0 - fit.headroom) * fit.ranked[0].memory_limit_bytes
    assert all(e.memory_bytes <= limit for e in fit.ranked)
    named = [
        estimate(shape, workload, where, parse_layout(f"{layout},remat={remat},microbatch_size={size}"))
        for remat in REMAT_POLICIES
        for size in {e.layout.microbatch_size for e in fit.ranked}
    ]
    fastest = min(e.step_time_s for e in named if e.memory_bytes <= limit)
    assert fit.ranked[0].step_time_s <= fastest * (1.0 + 2e-3)
    again = estimate(shape, workload, where, fit.ranked[0].layout)
    assert again.step_time_s == pytest.approx(fit.ranked[0].step_time_s)


def test_ops_of_both_kinds_of_layer_are_priced():
    shape = load_model("deepseek-v3")
    p = problem(shape, Workload(seq_len=4096, global_batch_size=1024), load_cluster("h100-sxm:1024"))
    ops = {op.name: op for op in op_prices(p, parse_layout("fsdp=128,expert=8"))}
    assert {"mlp_up", "expert_up", "attention"} <= ops.keys()
    assert all(np.isfinite(op.forward_s) and op.saved_bytes >= 0 for op in ops.values())


def test_an_impossible_layout_is_refused():
    shape, workload = load_model("llama3-8b"), Workload(seq_len=8192, global_batch_size=128)
    with pytest.raises(LayoutError, match="no microbatch size"):
        fit_remat(shape, workload, load_cluster("v5e-64"), parse_layout("fsdp=48"))


def run(*args: str):
    asked = ("llama3-8b", "--cluster", "v5e-64", "--seq-len", "8192", "--global-batch-size", "128", "--compiles", "0")
    return CliRunner().invoke(cli, ["fit", *asked, *args])


def test_the_verb_prints_a_layout_that_predict_reads():
    result = run("--layout", "fsdp=64", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["chosen"]["step_time_s"] <= record["given"]["step_time_s"]
    assert parse_layout(record["chosen"]["layout_text"]).fsdp == 64
    assert "Not compiled" in run("--layout", "fsdp=64").output


def test_the_verb_says_when_nothing_fits():
    result = run("--layout", "data=64")
    assert isinstance(result.exception, InfeasibleError)
