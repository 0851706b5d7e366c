"""What can be answered from arithmetic alone: predict, search, explain, export."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxscale.api.inputs import AnyCluster, AnyLayout, Model, layout_of, subject_of
from jaxscale.api.result import Result, estimate_row
from jaxscale.cost import estimate
from jaxscale.errors import SpecError, nearest
from jaxscale.export import TARGETS, Export
from jaxscale.report import explain
from jaxscale.report.kinds.predict import predict_page
from jaxscale.report.kinds.search import search_page
from jaxscale.report.kinds.shared import Subject
from jaxscale.report.page import Page
from jaxscale.report.words import layout_sentences
from jaxscale.search import DEFAULT_HEADROOM, SearchResult, parse_limits, search, single_changes
from jaxscale.types import Estimate, Stack, Workload
from jaxscale.types.checks import CheckedLayout
from jaxscale.types.search import Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction(Result):
    """One layout as predicted; `estimate` holds its figures: seconds of a step, bytes and FLOPs of one device."""

    subject: Subject
    estimate: Estimate

    def rows(self) -> list[dict[str, Any]]:
        """One row."""
        return [estimate_row(self.estimate)]

    def page(self) -> Page:
        """The report of `jaxscale predict`."""
        return predict_page(self.subject, self.estimate, _changes(self.subject, self.estimate))

    def to_json(self) -> dict[str, Any]:
        """As `jaxscale predict --json`."""
        return {"model": self.subject.shape.name, "cluster": self.subject.cluster.name} | self.estimate.to_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking(Result):
    """The layouts of a model on a cluster, best first; `search` holds what was looked at, rejected and kept."""

    subject: Subject
    search: SearchResult

    @property
    def top(self) -> tuple[Estimate, ...]:
        """The best layouts; empty where nothing fits."""
        return self.search.top

    def rows(self) -> list[dict[str, Any]]:
        """One row a layout: the ranking, then the rest of the Pareto front and the best of each mesh."""
        found = self.search
        kept = {e.layout: e for e in (*found.by_mesh, *found.pareto, *found.ranked)}
        ranks = {e.layout: rank for rank, e in enumerate(found.ranked, start=1)}
        front = {e.layout for e in found.pareto}
        ordered = sorted(kept.values(), key=lambda e: (ranks.get(e.layout, len(ranks) + 1), e.step_time_s))
        return [{"rank": ranks.get(e.layout), "on_pareto_front": e.layout in front} | estimate_row(e) for e in ordered]

    def page(self) -> Page:
        """The report of `jaxscale search`."""
        found = self.search
        if not found.ranked:
            raise SpecError(f"no layout of {found.shape.name} fits on {found.cluster.name}: there is nothing to report")
        rows = [CheckedLayout(rank=rank, predicted=e) for rank, e in enumerate(found.top, start=1)]
        return search_page(found, rows, (), _changes(self.subject, found.top[0]), self.subject.stack)

    def to_json(self) -> dict[str, Any]:
        """As `jaxscale search --json`."""
        return self.search.to_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Result):
    """Why a layout takes the time and memory it does; `sections` are sentences by heading.

    `changes` are the layouts one decision away, fastest first; `against` is another layout that it is compared with.
    """

    subject: Subject
    estimate: Estimate
    changes: tuple[Change, ...]
    against: Estimate | None
    sections: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        return "\n\n".join("\n".join((heading, *said)) for heading, said in self.sections.items())

    def rows(self) -> list[dict[str, Any]]:
        """One row for each single change, with what it would gain."""
        base = self.estimate
        return [
            {"change": c.what, "kind": c.kind, "gain_s": base.step_time_s - c.estimate.step_time_s}
            | estimate_row(c.estimate)
            for c in self.changes
        ]

    def page(self) -> Page:
        """The report of `jaxscale predict`, which says why."""
        return predict_page(self.subject, self.estimate, self.changes)

    def to_json(self) -> dict[str, Any]:
        """The estimate, what would improve it, and the sentences."""
        better = explain.improvements(self.estimate, self.changes)
        return {
            "model": self.subject.shape.name,
            "cluster": self.subject.cluster.name,
            "estimate": self.estimate.to_json(),
            "improvements": [{"change": c.what, "estimate": c.estimate.to_json()} for c in better],
            "against": self.against.to_json() if self.against else None,
            "explanation": self.sections,
        }


def predict_step(
    model: Model, workload: Workload, cluster: AnyCluster, layout: AnyLayout, *, stack: Stack | None = None
) -> Prediction:
    """Predict time, memory, communication, MFU and money of one optimizer step.

    `model` is a preset, a file or a `ModelShape`; `cluster` such as "v5p-64"; `layout` such as "fsdp=16,tensor=4".
    `stack` are the software's constants (those of jaxscale's own training step). Milliseconds; JAX is not loaded.
    Raises LayoutError where the layout cannot run this model and batch; one that does not fit in memory is an answer.

    >>> from jaxscale import Workload, predict_step
    >>> workload = Workload(seq_len=8192, global_batch_size=128)
    >>> predict_step("llama3-8b", workload, "v5p-64", "fsdp=32,remat=dots").estimate.fits
    True
    """
    about = subject_of(model, workload, cluster, stack)
    e = estimate(about.shape, about.workload, about.cluster, layout_of(layout), about.stack)
    return Prediction(subject=about, estimate=e)


def search_layouts(
    model: Model,
    workload: Workload,
    cluster: AnyCluster,
    *,
    limits: Sequence[str] = (),
    objective: str = "time",
    top: int = 3,
    headroom: float = DEFAULT_HEADROOM,
    stack: Stack | None = None,
) -> Ranking:
    """Price every legal layout and rank those that fit, by `objective`: time, money or memory.

    `limits` are written as `--limit` reads them ("tensor<=8", "remat=full|dots"); `headroom` is the share of a device's
    memory to leave free; `top` how many layouts are the answer. A second or two for a million layouts on one core.
    """
    about = subject_of(model, workload, cluster, stack)
    found = search(
        about.shape, about.workload, about.cluster, stack=about.stack, limits=parse_limits(*limits),
        objective=objective, top=top, headroom=headroom,
    )  # fmt: skip
    return Ranking(subject=about, search=found)


def explain_layout(
    model: Model,
    workload: Workload,
    cluster: AnyCluster,
    layout: AnyLayout,
    *,
    against: AnyLayout | None = None,
    stack: Stack | None = None,
) -> Explanation:
    """Tell in sentences with numbers why a layout takes the time and memory it does, and what would improve it.

    `against` is another layout; what it takes more or less of is told too. Every gain is a layout priced, not a rule.
    """
    about = subject_of(model, workload, cluster, stack)
    e = estimate(about.shape, about.workload, about.cluster, layout_of(layout), about.stack)
    other = None
    if against is not None:
        other = estimate(about.shape, about.workload, about.cluster, layout_of(against), about.stack)
    changes = _changes(about, e)
    return Explanation(
        subject=about, estimate=e, changes=changes, against=other, sections=_sections(about, e, changes, other)
    )


def export_layout(model: Model, workload: Workload, cluster: AnyCluster, layout: AnyLayout, target: str) -> Export:
    """Write a layout as the configuration of another framework: maxtext, torchtitan, megatron, deepspeed ...

    The answer's `text` is the file, its `notes` say what that framework cannot be told.
    """
    if target not in TARGETS:
        raise SpecError(f"target={target!r} is not one of {', '.join(TARGETS)}.{nearest(target, TARGETS)}")
    about = subject_of(model, workload, cluster)
    return TARGETS[target](about.shape, about.workload, about.cluster, layout_of(layout))


def _changes(about: Subject, e: Estimate) -> tuple[Change, ...]:
    return single_changes(about.shape, about.workload, about.cluster, e.layout, about.stack)


def _sections(
    about: Subject, e: Estimate, changes: Sequence[Change], other: Estimate | None
) -> dict[str, tuple[str, ...]]:
    sections = {
        "What it does": layout_sentences(e.layout, about.workload, about.cluster),
        "Time": explain.time_sentences(e, about.workload, about.cluster),
        "Memory": explain.memory_sentences(e),
        "Communication": (explain.communication_sentence(e),),
        "The best single changes" if e.fits else "Single changes after which it fits": explain.gain_sentences(
            e, changes
        ),
    }
    if other is not None:
        sections["Against the other layout"] = explain.difference_sentences(e, other)
    return sections
