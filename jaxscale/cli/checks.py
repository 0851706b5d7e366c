"""The checks of `jaxscale search --check`: the ranked list walked down until enough layouts have passed."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from jaxscale.cli.twin import twin_check
from jaxscale.types import Cluster, Estimate, ModelShape, Workload
from jaxscale.types.checks import Check, CheckedLayout
from jaxscale.types.search import SearchResult
from jaxscale.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from jaxscale.aot.result import CompiledStep

CHECKS = ("compile", "twin")
MOST_TRIES = 3  # times the layouts asked for; then the list counts as exhausted

Said = Callable[[str], None]  # told of what happens, for the progress display


def checked(result: SearchResult, kinds: Sequence[str], said: Said) -> tuple[CheckedLayout, ...]:
    """Check the ranked layouts, best first, until `num_top` have passed; those that failed stay in the list."""
    rows = {rank: CheckedLayout(rank=rank, predicted=e) for rank, e in enumerate(result.ranked, start=1)}
    if "compile" in kinds:
        rows = _compiled(result, rows, said)
    else:
        rows = {rank: rows[rank] for rank in list(rows)[: result.num_top]}
    if "twin" in kinds:
        rows |= _twinned(result, rows, said)
    return tuple(rows[rank] for rank in sorted(rows))


def _twinned(result: SearchResult, rows: dict[int, CheckedLayout], said: Said) -> dict[int, CheckedLayout]:
    """Run the winner's twin, and where that fails the next one's; the first that passes is the winner."""
    done: dict[int, CheckedLayout] = {}
    for rank, row in sorted(rows.items()):
        if row.passed:
            said(f"training the twin of #{rank} on emulated devices and on one")
            check = twin_check(result.shape, result.workload, row.predicted.layout)
            said(f"#{rank}: {check.sentence}")
            done[rank] = _with(row, check)
            if check.passed:
                break
    return done


def _with(row: CheckedLayout, check: Check) -> CheckedLayout:
    return CheckedLayout(rank=row.rank, predicted=row.predicted, checks=(*row.checks, check))


def _compiled(result: SearchResult, rows: dict[int, CheckedLayout], said: Said) -> dict[int, CheckedLayout]:
    """Compile in rounds: as many as still lack, then the next ones in place of those struck out.

    A round in which the compiler could not answer at all is the last.
    """
    done: dict[int, CheckedLayout] = {}
    left = iter(list(rows.values())[: result.num_top * MOST_TRIES])
    while True:
        lacking = result.num_top - sum(row.proven for row in done.values())
        batch = list(itertools.islice(left, lacking))
        if not batch:
            return done
        said(f"compiling {', '.join(f'#{row.rank}' for row in batch)} for {result.cluster.name}")
        for row, check in _compile_checks(result.shape, result.workload, result.cluster, batch):
            done[row.rank] = _with(row, check)
            said(f"#{row.rank}: {check.sentence}")
        if all(done[row.rank].mark == "?" for row in batch):
            return done


def _compile_checks(
    shape: ModelShape, workload: Workload, cluster: Cluster, rows: Sequence[CheckedLayout]
) -> Iterator[tuple[CheckedLayout, Check]]:
    from jaxscale.aot.pool import compile_layouts
    from jaxscale.api.compiled import compile_request, compiled_estimate

    requests = [compile_request(shape, workload, cluster, row.predicted.layout, quick=True) for row in rows]
    for index, step in compile_layouts(requests):
        row = rows[index]
        record = compiled_estimate(step, shape, workload, cluster) if step.memory else None
        sentence = _compile_sentence(row.predicted, record, step)
        passed = None if step.status == "failed" else step.fits
        yield row, Check(kind="compile", passed=passed, sentence=sentence, seconds=step.total_s, estimate=record)


def _compile_sentence(predicted: Estimate, record: Estimate | None, step: "CompiledStep") -> str:
    if record is None:
        return step.message
    off = predicted.memory_bytes / record.memory_bytes - 1.0
    how = "from the cache" if step.cached else f"in {format_seconds(step.total_s)}"
    verdict = "fits" if step.fits else "does not fit"
    needed, limit = format_bytes(record.memory_bytes), format_bytes(record.memory_limit_bytes)
    expected = f"predicted {format_bytes(predicted.memory_bytes)}, {off:+.1%}"
    note = f"; {step.target.note}" if step.target.note else ""
    return f"{verdict}: the compiler needs {needed} of {limit} ({expected}), {how}{note}"
