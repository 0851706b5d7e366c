"""One report of every kind for all report tests; what a compiler or a device would say is made up."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from jaxscale.calibrate import Run, Software, calibration_for
from jaxscale.catalog import load_cluster, load_model
from jaxscale.cost import estimate
from jaxscale.plan.budget.ask import Ask
from jaxscale.plan.budget.planner import Plan, make_plan
from jaxscale.plan.fit import fit_law
from jaxscale.plan.laws import dense
from jaxscale.report.figures.tuning import Candidate, Effect
from jaxscale.report.kinds.calibrate import calibrate_page
from jaxscale.report.kinds.compile import CompilerFacts, compile_page
from jaxscale.report.kinds.fit_law import fit_law_page
from jaxscale.report.kinds.measure import measure_page
from jaxscale.report.kinds.plan import plan_page
from jaxscale.report.kinds.predict import predict_page
from jaxscale.report.kinds.search import search_page
from jaxscale.report.kinds.shared import Subject
from jaxscale.report.kinds.tune import TuneFacts, tune_page
from jaxscale.report.kinds.validate import validate_page
from jaxscale.report.ops import predicted_ops
from jaxscale.report.page import Page, render
from jaxscale.search import SearchResult, search, single_changes
from jaxscale.types import Estimate, Layout, Workload
from jaxscale.types.checks import Check, CheckedLayout
from jaxscale.types.measurement import Measurement, MeasureRequest, Surroundings
from jaxscale.validate import Predictions, Refusal, predict, scores_by_source

WORKLOAD = Workload(seq_len=2048, global_batch_size=32)
HOSTILE = "</script><script>alert(1)</script><b>"  # a name that a stranger's file may hold


@functools.cache
def result(cluster: str = "h100-sxm:8") -> SearchResult:
    """GPT-2 of 774M parameters on one node."""
    return search(load_model("gpt2-774m"), WORKLOAD, load_cluster(cluster), top=3)


@functools.cache
def rows() -> tuple[CheckedLayout, ...]:
    """The ranking: the compiler refuses the first layout and takes the next three."""
    checked = []
    for rank, e in enumerate(result().ranked[:4], start=1):
        passed = rank != 1
        record = compiled(e, size=e.memory_bytes * (1.02 if passed else 3.0))
        verdict = "fits: the compiler needs 1.0 GiB" if passed else "does not fit: the compiler needs <99> GiB"
        check = Check(kind="compile", passed=passed, sentence=verdict, seconds=2.0, estimate=record)
        checked.append(CheckedLayout(rank=rank, predicted=e, checks=(check,)))
    return tuple(checked)


def compiled(e: Estimate, size: float) -> Estimate:
    """A compiler's record of a predicted step that needs `size` bytes."""
    parts = {"arguments": 0.4 * size, "temporaries": 0.6 * size}
    time = {"compute": 0.9 * e.step_time_s, "fsdp": 0.1 * e.step_time_s}
    return dataclasses.replace(
        e, tier="compiled", memory_bytes=size, memory_parts_bytes=parts, time_parts_s=time, interval_80_s=None
    )


def subject() -> Subject:
    """What the single reports are about: a model whose name came out of a file."""
    shape = dataclasses.replace(result().shape, name=HOSTILE)
    return Subject(shape=shape, workload=WORKLOAD, cluster=result().cluster)


def _search() -> Page:
    found = result()
    changes = single_changes(found.shape, found.workload, found.cluster, rows()[1].predicted.layout)
    return search_page(found, rows(), (found, result("v5e-16")), changes)


def _predict() -> Page:
    e = result().ranked[0]
    return predict_page(subject(), e, single_changes(result().shape, WORKLOAD, result().cluster, e.layout))


def _compile() -> Page:
    e = result().ranked[0]
    about = subject()
    facts = CompilerFacts(
        status="compiled", message="", compile_s=12.5, cached=False, cycles_s=0.1,
        buffers=[(f"param.{i} {HOSTILE}", 2.0**30 / i) for i in range(1, 5)],
        ops=predicted_ops(about.shape, WORKLOAD, about.cluster, e), versions={"libtpu": "0.0"},
        flags=[("xla_flag", "1")], note="compiled for nobody",
    )  # fmt: skip
    return compile_page(about, e, compiled(e, 1.02 * e.memory_bytes), facts)


def measurement(status: str = "ok") -> Measurement:
    """A run of ten steps, one of them slow; of another status it has no timed step."""
    about = subject()
    ran = status == "ok"
    request = MeasureRequest(
        shape=about.shape, workload=WORKLOAD, layout=result().ranked[0].layout, cluster=about.cluster
    )
    return Measurement(
        identifier="0123456789", started_at="2026-01-01T00:00:00+00:00", request=request, status=status,
        message="" if ran else HOSTILE, device_kind="H100", num_devices=8, compile_s=30.0,
        warmup_times_s=(2.0, 1.1) if ran else (), step_times_s=(1.0, 1.01, 0.99, 1.0, 3.0, 1.0) if ran else (),
        losses=(9.0, 8.0, 7.0) if ran else (), peak_memory_bytes=3.0e10, memory_source="device",
        mfu=0.4 if ran else None, hfu=0.5 if ran else None,
        surroundings=Surroundings(
            host="there", num_cores=8, load_before=0.1, load_after=0.2, free_memory_bytes=1e9,
            versions={"jax": "0.10"}, flags={"XLA_FLAGS": "--" + "long_" * 40}, git_revision="", source_digest="abcdef",
        ),
    )  # fmt: skip


def _measure() -> Page:
    e = result().ranked[0]
    return measure_page(measurement(), e, compiled(e, 1.02 * e.memory_bytes))


def plan() -> Plan:
    """Three days of one node, to be served afterwards."""
    ask = Ask(cluster=load_cluster("h100-sxm:8"), time_s=3 * 86400.0, inference_tokens=1e12)
    return make_plan(ask, lambda *_: result().ranked[0])


def _plan() -> Page:
    return plan_page(plan())


@functools.cache
def runs() -> tuple[tuple[Run, ...], Predictions]:
    """A sweep of layouts of one model on one node, and one that ran out of memory; times are made up."""
    software = Software(stack="xla_gpu", fused_elementwise=True)
    made = []
    for i, e in enumerate((*result().ranked[:10], result().closest[0] if result().closest else result().ranked[-1])):
        out_of_memory = i == 10
        made.append(
            Run(
                id=f"run {i} {HOSTILE}", group=("here", f"there {HOSTILE}")[i % 2], family="sweep",
                shape=result().shape, workload=WORKLOAD, cluster=result().cluster, layout=e.layout, software=software,
                outcome="oom" if out_of_memory else "ok",
                step_time_s=float("nan") if out_of_memory else e.step_time_s * (0.9 + 0.02 * i),
                peak_memory_bytes=1.1 * e.memory_bytes, mfu_reported=float("nan"), mfu_note="", weight=1.0,
                comparable="sweep",
            )
        )  # fmt: skip
    return tuple(made), predict(made)


def _validate() -> Page:
    every, predictions = runs()
    refusals = [Refusal(id="bad row", group="here", reason=f"hardware {HOSTILE} is not known")]
    scores = scores_by_source(every, predictions, refusals)
    return validate_page(every, predictions, scores, refusals, "runs.csv")


def candidates() -> list[Candidate]:
    """Twelve layouts of which four were tried; the third of them did not run."""
    made = []
    for i, e in enumerate(result().ranked[:12]):
        s, trial = e.step_time_s, i + 1 if i < 4 else 0
        made.append(
            Candidate(
                label=str(e.layout), prior_s=s, prior_80_s=(0.8 * s, 1.25 * s), posterior_s=1.3 * s,
                posterior_80_s=(1.2 * s, 1.4 * s), trial=trial,
                measured_s=s * (1.4 - 0.05 * i) if trial and i != 2 else None, message=HOSTILE if i == 2 else "",
            )
        )  # fmt: skip
    return made


def _tune() -> Page:
    effects = [Effect(feature="log2 tensor", log_time=0.1, deviation=0.02, share=0.7)]
    facts = TuneFacts(stopped="gain", expected_gain=0.001, num_from_store=1, sigma_log=0.13, scale=1.3)
    return tune_page(subject(), candidates(), effects, facts)


def _calibrate() -> Page:
    every, _ = runs()
    start = calibration_for("xla_gpu", "h100")
    moved = {name: dataclasses.replace(found, value=1.05 * found.value) for name, found in start.fitted.items()}
    return calibrate_page(every, dataclasses.replace(start, fitted=moved), start)


def _fit_law() -> Page:
    params, tokens = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 5)))
    loss = dense.BESIROGLU.loss(params, tokens) * (1.0 + 0.002 * np.cos(np.arange(len(params))))
    found = fit_law("chinchilla", {"params": params, "tokens": tokens, "loss": loss}, draws=0, leave_out=False)
    assert found.fit is not None
    return fit_law_page(dataclasses.replace(found, source=HOSTILE), found.fit, HOSTILE)


PAGES: dict[str, Callable[[], Page]] = {
    "calibrate": _calibrate, "compile": _compile, "fit_law": _fit_law, "measure": _measure, "plan": _plan,
    "predict": _predict, "search": _search, "tune": _tune, "validate": _validate,
}  # fmt: skip


@functools.cache
def page(kind: str) -> Page:
    """The report of a kind, laid out."""
    return PAGES[kind]()


@functools.cache
def report(kind: str = "search") -> str:
    """The report of a kind as a document."""
    return render(page(kind))


def one_layout_search(layout: Layout) -> Page:
    """The report of a search that found one layout only."""
    e = estimate(result().shape, WORKLOAD, result().cluster, layout)
    found = dataclasses.replace(result(), ranked=(e,), pareto=(e,), by_mesh=(e,))
    return search_page(found, (CheckedLayout(rank=1, predicted=e),))
