"""The report of a search."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxscale.report import explain
from jaxscale.report.figures import layouts, parts
from jaxscale.report.figures.readings import (
    Reading,
    memory_reading,
    memory_readings_figure,
    time_reading,
    time_readings_figure,
)
from jaxscale.report.kinds.shared import (
    Subject,
    assumptions,
    communication_evidence,
    memory_evidence,
    predicted_roofline,
    step_cards,
    time_evidence,
)
from jaxscale.report.page import (
    Block,
    Card,
    Cards,
    Cell,
    Column,
    Evidence,
    Explorer,
    Filter,
    Measure,
    Page,
    Prose,
    Row,
    Section,
    Table,
    Verdict,
    Verdicts,
    number_table,
)
from jaxscale.report.pipeline import schedule_drawing
from jaxscale.report.words import RULE_WORDS, layout_sentences, plural, short_layout
from jaxscale.types import AXES, Estimate, Stack
from jaxscale.types.checks import CheckedLayout, winner_of
from jaxscale.types.search import Change, SearchResult
from jaxscale.units import GIB, format_bytes, format_dollars, format_seconds

MOST_EXPLORED = 300


def search_page(
    result: SearchResult,
    rows: Sequence[CheckedLayout],
    results: Sequence[SearchResult] = (),
    changes: Sequence[Change] = (),
    stack: Stack | None = None,
) -> Page:
    """Lay the report of a search out: `rows` are its best layouts with their checks, `changes` the best one's.

    `results` are the searches of all clusters that were compared, `result` the one that won, `stack` the constants that
    it was priced with.
    """
    winner = winner_of(rows) or rows[0]
    explored = _explored(result, rows)
    subject = Subject(shape=result.shape, workload=result.workload, cluster=result.cluster, stack=stack)
    e = winner.predicted
    sections = [
        Section(anchor="answer", heading="The answer", blocks=_answer(result, rows, winner)),
        *([_clusters(results)] if len(results) > 1 else []),
        Section(anchor="pareto", heading="Time against memory", blocks=(_explorer(result, explored),)),
        Section(anchor="parts", heading="Where time and memory go", blocks=_parts(rows)),
        *_pipeline(winner, result),
        Section(anchor="roofline-section", heading="Every op", blocks=(predicted_roofline(subject, e),)),
        Section(anchor="communication-section", heading="Communication", blocks=_communication(rows)),
        Section(anchor="why", heading="Why", blocks=_why(result, rows, winner, changes)),
        Section(anchor="layouts", heading="Layouts", blocks=(_table(explored, rows),)),
        Section(anchor="coordinates", heading="All axes at once", blocks=_coordinates(result)),
        Section(anchor="rejected-section", heading="What was rejected", blocks=_rejected(result)),
        assumptions(subject, _provenance(result), predicted=e),
    ]
    return Page(
        title=f"{result.shape.name} on {result.cluster.name}: jaxscale search",
        eyebrow=subject.eyebrow("search"),
        headline=_headline(result, winner),
        lead=(
            f"Looked at {result.num_looked_at:,} layouts in {format_seconds(result.seconds)}; {result.num_legal:,} can "
            f"run and {result.num_fitting:,} of them fit with {result.headroom:.0%} of memory left free.",
        ),
        sections=sections,
        data={
            "layouts": [_record(i, entry, rows, result) for i, entry in enumerate(explored)],
            "limit_bytes": e.memory_limit_bytes,
            "best_time": result.ranked[0].step_time_s,
            "first": explored.index(e),
        },
    )


def _headline(result: SearchResult, winner: CheckedLayout) -> str:
    e = winner.predicted
    adjective = {"time": "fastest", "money": "cheapest", "memory": "in the least memory"}[result.objective]
    proof = ", and the compiler agrees that it fits" if winner.compiled and winner.proven else ""
    return (
        f"{result.shape.name} trains {adjective} on {result.cluster.name} with {short_layout(e.layout)}: "
        f"{format_seconds(e.step_time_s)} a step at {e.mfu:.0%} MFU{proof}."
    )


def _answer(result: SearchResult, rows: Sequence[CheckedLayout], winner: CheckedLayout) -> tuple[Block, ...]:
    e = winner.predicted
    cards = step_cards(e, result.cluster)
    if winner.compiled is not None:
        compiled = winner.compiled.memory_bytes
        off = e.memory_bytes / compiled - 1.0
        cards.insert(4, Card(name="Compiled memory", value=format_bytes(compiled), note=f"prediction {off:+.1%}"))
    verdicts = [
        Verdict(passed=check.passed, sentence=f"#{row.rank} {check.kind}: {check.sentence}")
        for row in rows
        for check in row.checks
    ]
    words = layout_sentences(e.layout, result.workload, result.cluster)
    checks = (Verdicts(verdicts=verdicts),) if verdicts else ()
    return (Cards(cards=cards), Prose(sentences=words, kind="list"), _best(rows), *checks)


def _best(rows: Sequence[CheckedLayout]) -> Table:
    """The ranked layouts, with the compiler's memory where any was compiled."""
    header = ["#", "layout", "seconds a step", "MFU, %", "GiB per device"]
    values: list[list[float | str | Cell]] = [
        [row.rank, short_layout(e.layout), e.step_time_s, 100.0 * e.mfu, e.memory_bytes / GIB]
        for row in rows
        for e in (row.predicted,)
    ]
    if any(row.compiled for row in rows):
        header.append("compiled, GiB")
        for row, cells in zip(rows, values, strict=True):
            cells.append(row.compiled.memory_bytes / GIB if row.compiled else float("nan"))
    table = number_table("The best layouts.", header, values)
    body = [dataclasses.replace(row, struck=not of.passed) for row, of in zip(table.rows, rows, strict=True)]
    return dataclasses.replace(table, rows=body, id="best")


def _labelled(rows: Sequence[CheckedLayout]) -> list[tuple[str, Estimate]]:
    """Every estimate of the ranked layouts, a compiled one after the predicted one that it checks."""
    both = [(row.rank, e) for row in rows for e in (row.predicted, row.compiled) if e is not None]
    return [(f"#{rank} {e.tier}", e) for rank, e in both]


def _parts(rows: Sequence[CheckedLayout]) -> tuple[Block, ...]:
    bars = _labelled(rows)
    every = [e for _, e in bars]
    limit = rows[0].predicted.memory_limit_bytes
    times, memory = time_evidence(every), memory_evidence(every)
    readings: list[Reading] = [time_reading(label, e) for label, e in bars]
    compiled = len(memory.tiers) > 1
    side_by_side = (
        (memory_readings_figure([memory_reading(label, e) for label, e in bars], limit, memory),) if compiled else ()
    )
    return (
        time_readings_figure(readings, times),
        parts.time_figure(bars, times),
        *side_by_side,
        parts.memory_figure(bars, limit, memory),
    )


def _communication(rows: Sequence[CheckedLayout]) -> tuple[Block, ...]:
    bars = _labelled(rows)
    return (parts.communication_figure(bars, communication_evidence([e for _, e in bars])),)


def _clusters(results: Sequence[SearchResult]) -> Section:
    best = sorted(((r.cluster, r.ranked[0]) for r in results if r.ranked), key=lambda item: item[1].step_time_s)
    columns = [
        Column(name="Cluster"),
        *(Column(name=n, numeric=True) for n in ("Chips", "Seconds a step", "Per 1B tokens", "MFU")),
    ]
    rows = [
        Row(
            cells=[
                Cell(text=cluster.name, value=cluster.name),
                Cell(text=str(cluster.num_chips), value=cluster.num_chips),
                Cell(text=format_seconds(e.step_time_s), value=e.step_time_s),
                _money_cell(e),
                Cell(text=f"{e.mfu:.1%}", value=e.mfu),
            ]
        )
        for cluster, e in best
    ]
    table = Table(caption="The best layout of each cluster.", columns=columns, rows=rows, sortable=True, id="clusters")
    priced = [(cluster.name, e) for cluster, e in best if e.dollars_per_billion_tokens]
    figure = (layouts.clusters_figure(priced, time_evidence([e for _, e in priced])),) if len(priced) > 1 else ()
    return Section(anchor="clusters-section", heading="Clusters compared", blocks=(table, *figure))


def _pipeline(winner: CheckedLayout, result: SearchResult) -> list[Section]:
    drawing = schedule_drawing(winner.predicted, result.workload)
    return [] if drawing is None else [Section(anchor="pipeline", heading="Pipeline", blocks=(drawing,))]


def _money_cell(e: Estimate) -> Cell:
    money = e.dollars_per_billion_tokens
    return Cell(text=format_dollars(money) if money else "unknown", value=money)


def _explored(result: SearchResult, rows: Sequence[CheckedLayout]) -> list[Estimate]:
    """The layouts to show as points: the ranking, the Pareto front, the best of each mesh; each once."""
    kept: dict[Any, Estimate] = {}
    for e in (*(row.predicted for row in rows), *result.ranked, *result.pareto, *result.by_mesh):
        kept.setdefault(e.layout, e)
    return list(kept.values())[:MOST_EXPLORED]


def _record(number: int, e: Estimate, rows: Sequence[CheckedLayout], result: SearchResult) -> dict[str, Any]:
    """What the page's script knows of a layout."""
    rank = next((row.rank for row in rows if row.predicted.layout == e.layout), 0)
    fields = {axis: getattr(e.layout, axis) for axis in AXES}
    return {
        "id": number,
        "rank": rank,
        "front": any(p.layout == e.layout for p in result.pareto),
        "text": short_layout(e.layout),
        **fields,
        "microbatch_size": e.layout.microbatch_size,
        "remat": e.layout.remat,
        "time": e.step_time_s,
        "mfu": e.mfu,
        "memory": e.memory_bytes,
        "sent": sum(e.comm_bytes.values()),
        "usd": e.dollars_per_billion_tokens,
        "time_parts": e.time_parts_s,
        "memory_parts": e.memory_parts_bytes,
        "words": layout_sentences(e.layout, result.workload, result.cluster),
    }


def _explorer(result: SearchResult, explored: Sequence[Estimate]) -> Explorer:
    names = {axis: axis for axis in AXES} | {"microbatch_size": "microbatch", "remat": "remat"}
    filters = []
    for name, words in names.items():
        values = {getattr(e.layout, name) for e in explored}
        if len(values) > 1:
            filters.append(Filter(field=name, name=words, values=[str(value) for value in sorted(values)]))
    filters.sort(key=lambda f: f.field != "remat")
    priced = (Measure(field="usd", name="money"),) if result.cluster.dollars_per_chip_hour else ()
    measures = (
        Measure(field="memory", name="memory"), *priced, Measure(field="sent", name="communication"),
        Measure(field="mfu", name="MFU"),
    )  # fmt: skip
    caption = (
        "Each point is a layout: the ranked ones, the Pareto front (no other layout is both faster and lighter) and "
        f"the best layout of each of {plural(len(result.by_mesh), 'mesh')}. Point at one to read it, click to see it "
        "in detail."
    )
    return Explorer(filters=filters, measures=measures, caption=caption, evidence=time_evidence(explored[:1]))


def _coordinates(result: SearchResult) -> tuple[Block, ...]:
    estimates = result.by_mesh or result.ranked
    return (layouts.parallel_figure(estimates, time_evidence(estimates[:1])),)


def _why(
    result: SearchResult, rows: Sequence[CheckedLayout], winner: CheckedLayout, changes: Sequence[Change]
) -> tuple[Block, ...]:
    e = winner.predicted
    blocks = [
        Prose(sentences=explain.time_sentences(e, result.workload, result.cluster)),
        Prose(sentences=(*explain.memory_sentences(e), explain.communication_sentence(e))),
    ]
    others = [row for row in rows if row is not winner]
    for row in others[:1]:
        sentences = explain.difference_sentences(e, row.predicted)
        refused = tuple(f"{check.kind}: {check.sentence}." for check in row.checks if check.passed is False)
        blocks.append(Prose(sentences=(f"Why not #{row.rank}?", *refused, *sentences)))
    near = [change for change in changes if change.estimate.fits][:3]
    if near:
        lead = "The nearest layouts, one decision away from the best:"
        blocks.append(Prose(sentences=(lead,)))
        blocks.append(Prose(sentences=[explain.change_sentence(e, change) for change in near], kind="list"))
    return tuple(blocks)


def _table(explored: Sequence[Estimate], rows: Sequence[CheckedLayout]) -> Table:
    ranks = {row.predicted.layout: row for row in rows}
    names = ("Seconds a step", "MFU", "GiB per device", "Per 1B tokens", "Tokens/s per chip")
    columns = [
        Column(name="#", numeric=True),
        Column(name="Layout"),
        *(Column(name=name, numeric=True) for name in names),
    ]
    body = []
    for number, e in sorted(enumerate(explored), key=lambda item: item[1].step_time_s):
        row = ranks.get(e.layout)
        text = short_layout(e.layout)
        cells = [
            Cell(text=str(row.rank) if row else "", value=row.rank if row else len(explored) + 1),
            Cell(text=text, value=text),
            Cell(text=f"{e.step_time_s:.4g}", value=e.step_time_s),
            Cell(text=f"{e.mfu:.1%}", value=e.mfu),
            Cell(text=f"{e.memory_bytes / GIB:.1f}", value=e.memory_bytes),
            _money_cell(e),
            Cell(text=f"{e.tokens_per_s_per_chip:,.0f}", value=e.tokens_per_s_per_chip),
        ]
        body.append(Row(cells=cells, layout=number, struck=row is not None and not row.passed))
    caption = "The layouts of the plot above; a heading sorts, the filters of the plot apply, Enter or a click selects."
    return Table(caption=caption, columns=columns, rows=body, id="layout-table", sortable=True)


def _rejected(result: SearchResult) -> tuple[Block, ...]:
    closest = [
        f"{short_layout(e.layout)} needs {format_bytes(e.memory_bytes)}, "
        f"{format_bytes(e.memory_bytes - result.memory_budget_bytes)} too much."
        for e in result.closest
    ]
    evidence = Evidence(tiers=("predicted",), sure="Rules are exact; whether a layout fits is the prediction's word.")
    blocks: list[Block] = [layouts.rejected_figure(result, RULE_WORDS, evidence)] if result.rejected else []
    if closest:
        blocks += [
            Prose(sentences=("Closest to fitting of those that do not:",)),
            Prose(sentences=closest, kind="list"),
        ]
    return tuple(blocks)


def _provenance(result: SearchResult) -> tuple[str, ...]:
    return (
        f"Objective: {result.objective}; limits: {result.limits or 'none'}; headroom {result.headroom:.0%}.",
        f"Search: {result.num_meshes:,} meshes, {result.layouts_per_s:,.0f} layouts a second on one core.",
    )
