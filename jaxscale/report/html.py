"""The report of a search as a page."""

import platform
from collections.abc import Sequence
from typing import Any

from jaxscale import __version__
from jaxscale.report import explain, figures
from jaxscale.report.page import (
    Card,
    Cards,
    Cell,
    Column,
    Explorer,
    Filter,
    Page,
    Prose,
    Row,
    Section,
    Table,
    Verdict,
    Verdicts,
    render,
)
from jaxscale.report.pipeline import schedule_drawing
from jaxscale.report.words import RULE_WORDS, layout_sentences, plural, short_layout
from jaxscale.types import AXES, Estimate
from jaxscale.types.checks import CheckedLayout, winner_of
from jaxscale.types.search import Change, SearchResult
from jaxscale.units import GIB, format_bytes, format_dollars, format_seconds

MOST_EXPLORED = 300


def search_report(
    result: SearchResult,
    rows: Sequence[CheckedLayout],
    results: Sequence[SearchResult] = (),
    changes: Sequence[Change] = (),
) -> str:
    """Write the report of a search: `rows` are its best layouts with their checks, `changes` the best one's neighbours.

    `results` are the searches of all clusters that were compared, `result` the one that won.
    """
    return render(search_page(result, rows, results, changes))


def search_page(
    result: SearchResult, rows: Sequence[CheckedLayout], results: Sequence[SearchResult], changes: Sequence[Change]
) -> Page:
    """Lay the report of a search out."""
    winner = winner_of(rows) or rows[0]
    explored = _explored(result, rows)
    sections = [
        Section(anchor="answer", heading="The answer", blocks=_answer(result, rows, winner)),
        *([_clusters(results)] if len(results) > 1 else []),
        Section(anchor="pareto", heading="Time against memory", blocks=(_explorer(result, explored),)),
        Section(
            anchor="parts",
            heading="Where time and memory go",
            blocks=(figures.time_figure(rows), figures.memory_figure(rows, winner.predicted.memory_limit_bytes)),
        ),
        *_pipeline(winner.predicted, result),
        Section(anchor="communication-section", heading="Communication", blocks=(figures.communication_figure(rows),)),
        Section(anchor="why", heading="Why", blocks=_why(result, rows, winner, changes)),
        Section(anchor="layouts", heading="Layouts", blocks=(_table(explored, rows),)),
        Section(
            anchor="coordinates",
            heading="All axes at once",
            blocks=(figures.parallel_figure(result.by_mesh or result.ranked),),
        ),
        Section(anchor="rejected-section", heading="What was rejected", blocks=_rejected(result)),
        Section(anchor="assumptions", heading="Assumptions and provenance", blocks=_assumptions(result, winner)),
    ]
    e = winner.predicted
    return Page(
        title=f"{result.shape.name} on {result.cluster.name}: jaxscale search",
        eyebrow=f"jaxscale search: {result.shape.name} on {result.cluster.name}",
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


def _answer(result: SearchResult, rows: Sequence[CheckedLayout], winner: CheckedLayout) -> tuple:
    e, chips = winner.predicted, result.cluster.num_chips
    low, high = e.interval_80_s or (e.lower_s, e.upper_s)
    cards = [
        Card(
            name="Step time",
            value=format_seconds(e.step_time_s),
            note=f"80%: {format_seconds(low)} to {format_seconds(high)}",
        ),
        Card(
            name="Throughput",
            value=f"{e.tokens_per_s_per_chip:,.0f}",
            note=f"tokens/s per chip, {plural(chips, 'chip')}",
        ),
        Card(name="MFU", value=f"{e.mfu:.1%}", note=f"HFU {e.hfu:.1%}"),
        Card(
            name="Memory",
            value=format_bytes(e.memory_bytes),
            note=f"of {format_bytes(e.memory_limit_bytes)} per device",
        ),
    ]
    if winner.compiled is not None:
        compiled = winner.compiled.memory_bytes
        off = e.memory_bytes / compiled - 1.0
        cards.append(Card(name="Compiled memory", value=format_bytes(compiled), note=f"prediction {off:+.1%}"))
    if e.dollars_per_billion_tokens:
        price = format_dollars(result.cluster.dollars_per_chip_hour)
        money = format_dollars(e.dollars_per_billion_tokens)
        cards.append(Card(name="Money", value=money, note=f"per billion tokens at {price} per chip-hour"))
    verdicts = [
        Verdict(passed=check.passed, sentence=f"#{row.rank} {check.kind}: {check.sentence}")
        for row in rows
        for check in row.checks
    ]
    words = layout_sentences(e.layout, result.workload, result.cluster)
    blocks: list = [Cards(cards=cards), Prose(sentences=words, kind="list")]
    if verdicts:
        blocks.append(Verdicts(verdicts=verdicts))
    return tuple(blocks)


def _clusters(results: Sequence[SearchResult]) -> Section:
    columns = [
        Column(name="Cluster"),
        *(Column(name=n, numeric=True) for n in ("Chips", "Seconds a step", "Per 1B tokens", "MFU")),
    ]
    rows = []
    for result in sorted((r for r in results if r.ranked), key=lambda r: r.ranked[0].step_time_s):
        e = result.ranked[0]
        cells = [
            Cell(text=result.cluster.name, value=result.cluster.name),
            Cell(text=str(result.cluster.num_chips), value=result.cluster.num_chips),
            Cell(text=format_seconds(e.step_time_s), value=e.step_time_s),
            _money_cell(e),
            Cell(text=f"{e.mfu:.1%}", value=e.mfu),
        ]
        rows.append(Row(cells=cells))
    table = Table(caption="The best layout of each cluster.", columns=columns, rows=rows, sortable=True, id="clusters")
    return Section(anchor="clusters-section", heading="Clusters compared", blocks=(table,))


def _pipeline(e: Estimate, result: SearchResult) -> list[Section]:
    drawing = schedule_drawing(e, result.workload)
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
    caption = (
        "Each point is a layout: the ranked ones, the Pareto front (no other layout is both faster and lighter) and "
        f"the best layout of each of {plural(len(result.by_mesh), 'mesh')}. Point at one to read it, click to see it "
        "in detail."
    )
    return Explorer(filters=filters, caption=caption)


def _why(
    result: SearchResult, rows: Sequence[CheckedLayout], winner: CheckedLayout, changes: Sequence[Change]
) -> tuple[Prose, ...]:
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


def _rejected(result: SearchResult) -> tuple:
    closest = [
        f"{short_layout(e.layout)} needs {format_bytes(e.memory_bytes)}, "
        f"{format_bytes(e.memory_bytes - result.memory_budget_bytes)} too much."
        for e in result.closest
    ]
    blocks: list = [figures.rejected_figure(result, RULE_WORDS)] if result.rejected else []
    if closest:
        blocks += [
            Prose(sentences=("Closest to fitting of those that do not:",)),
            Prose(sentences=closest, kind="list"),
        ]
    return tuple(blocks)


def _assumptions(result: SearchResult, winner: CheckedLayout) -> tuple[Prose, ...]:
    w, chip, e = result.workload, result.cluster.chip, winner.predicted
    batch = f"{w.global_batch_size} sequences of {w.seq_len} tokens a step"
    peak = chip.peak(w.precision.matmul) / 1e12
    sentences = [
        f"Workload: {batch}, {w.precision.name}, {w.optimizer.name}.",
        f"Model: {result.shape.name}; source: {result.shape.source or 'as given'}.",
        f"Cluster: {result.cluster.note or result.cluster.name}.",
        f"Chip: {chip.name}, {peak:,.0f} TFLOP/s, {format_bytes(chip.hbm_bytes)} of memory. "
        f"Sources: {chip.source or 'as given'}.",
        f"Software constants: {e.provenance.get('stack', '')}: {e.provenance.get('stack_source', '')}",
        "MFU counts the model's FLOPs, attention in full; HFU adds what is recomputed.",
        f"Objective: {result.objective}; limits: {result.limits or 'none'}; headroom {result.headroom:.0%}.",
        f"Search: {result.num_meshes:,} meshes, {result.layouts_per_s:,.0f} layouts a second on one core.",
        f"Versions: jaxscale {__version__}, Python {platform.python_version()}.",
    ]
    return (Prose(sentences=sentences, kind="list"),)
