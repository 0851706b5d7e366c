"""Predictions against compilers over the grids of a folder, as CSV, and the tables of README.md made from it.

    python experiments/agreement/tabulate.py tpu [--seconds S]
    python experiments/agreement/tabulate.py held_out [--seconds S]
    python experiments/agreement/tabulate.py gpu [--seconds S]

Compiles what has no kept answer yet, for at most S seconds; answers are kept, so that it can be stopped and goes on
where it was. The CSV holds every case that has an answer; the README's tables are rewritten from all CSVs.
"""

import argparse
import csv
import math
import time
from collections.abc import Iterator
from pathlib import Path

from jaxscale.aot.agreement import Agreement, compare, spread
from jaxscale.aot.compile import try_compile
from jaxscale.aot.request import CompileRequest
from jaxscale.aot.result import CompiledStep
from jaxscale.api.compiled import compiled_estimate
from jaxscale.cli.grid import Case, cases, load_grid
from jaxscale.cost import estimate, program_flops
from jaxscale.units import GIB

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
WITHIN = 0.01  # communication agrees
FAR = 0.08  # memory that is listed
Row = dict[str, str]


def main() -> None:
    """Compile, write the CSV, rewrite the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backend", choices=("tpu", "held_out", "gpu"))
    parser.add_argument("--seconds", type=float, default=math.inf, metavar="S")
    arguments = parser.parse_args()
    rows = list(compiled_rows(FOLDER / arguments.backend, arguments.seconds))
    write_csv(FOLDER / f"{arguments.backend}.csv", rows)
    README.write_text(with_tables(README.read_text()))


def compiled_rows(folder: Path, seconds: float) -> Iterator[Row]:
    """A row for every case with an answer; what compiles after `seconds` is left for another time."""
    found = [(path.stem, case) for path in sorted(folder.glob("*.yaml")) for case in cases(load_grid(str(path)))]
    end = time.monotonic() + seconds
    for number, (grid, case) in enumerate(found, 1):
        request = CompileRequest(
            shape=case.shape, workload=case.workload, layout=case.layout, cluster=case.cluster, quick=True
        )
        if time.monotonic() > end:
            print(f"time is up after {number - 1} of {len(found)} cases")
            return
        step = try_compile(request)
        if step.status == "failed":
            print(f"{number}/{len(found)} {case}: {step.message[:300]}", flush=True)
            continue
        row = case_row(grid, case, step)
        print(f"{number}/{len(found)} {case}: memory {row['memory']}, {step.total_s:.0f} s", flush=True)
        yield row


def case_row(grid: str, case: Case, step: CompiledStep) -> Row:
    """One case as the CSV has it: GiB, and relative differences, predicted over compiled less one."""
    predicted = estimate(case.shape, case.workload, case.cluster, case.layout)
    compiled = compiled_estimate(step, case.shape, case.workload, case.cluster)
    flops = program_flops(case.shape, case.workload, case.cluster, case.layout)
    agreement = compare(predicted, compiled, program_flops=flops, fitted=step.status == "compiled")
    own = predicted.memory_bytes - predicted.memory_parts_bytes.get("reserved", 0.0)
    return {
        "grid": grid,
        "model": case.shape.name,
        "cluster": case.cluster.name,
        "chip": case.cluster.chip.name,
        "seq_len": str(case.workload.seq_len),
        "layout": str(case.layout),
        "status": step.status,
        "predicted_gib": f"{own / GIB:.3f}",
        "compiled_gib": f"{compiled.memory_bytes / GIB:.3f}",
        "memory": _number(agreement.memory),
        "flops": _number(agreement.flops),
        "communication": _communication(agreement),
        "verdict_agrees": str(agreement.verdict),
    }


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else ""


def _communication(agreement: Agreement) -> str:
    """Differences by group of axes, such as `fsdp:0.0000 tensor:-0.0712`."""
    return " ".join(f"{group}:{value:.4f}" for group, value in sorted(agreement.communication.items()))


def write_csv(path: Path, rows: list[Row]) -> None:
    """Write the rows in the order of the grids."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def with_tables(text: str) -> str:
    """The README with its tables made from the CSVs: what stands between the marks of each is replaced."""
    for backend in ("tpu", "held_out", "gpu"):
        with (FOLDER / f"{backend}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for name, table in {
            "aims": aims,
            "grids": by_grid,
            "chips": by_chip,
            "memory": far,
            "communication": apart,
        }.items():
            begin, end = f"<!-- {backend} {name} -->\n", f"<!-- end of {backend} {name} -->"
            if begin in text:
                before, _, rest = text.partition(begin)
                text = before + begin + table(rows) + end + rest.partition(end)[2]
    return text


def aims(rows: list[Row]) -> str:
    """The issue's aims and what is reached."""
    memory, flops, groups = spread(_values(rows, "memory")), spread(_values(rows, "flops")), _groups(rows)
    verdicts = sum(row["verdict_agrees"] == "True" for row in rows)
    assert memory is not None, "every case has a memory"
    assert flops is not None, "a grid holds cases that fit"
    return _table(
        ("", "cases", "here", "aim"),
        [
            ("memory at the peak, median difference", memory.count, f"{memory.median:.1%}", "3%"),
            ("memory at the peak, 95th percentile", memory.count, f"{memory.p95:.1%}", "8%"),
            ("verdict (fits or not) is the compiler's", len(rows), f"{verdicts}, {verdicts / len(rows):.1%}", "98%"),
            ("FLOPs, within 1%", flops.count, _share(_values(rows, "flops")), "all"),
            ("FLOPs, largest difference", flops.count, f"{flops.largest:.2%}", "1%"),
            ("communication by group of axes, within 1%", f"{len(groups)} groups", _share(groups), "all"),
            ("communication by group of axes, median difference", f"{len(groups)} groups", _median(groups), "1%"),
        ],
    )


def by_grid(rows: list[Row]) -> str:
    """The same by grid file."""
    lines = []
    for grid in dict.fromkeys(row["grid"] for row in rows):
        own = [row for row in rows if row["grid"] == grid]
        memory, groups = spread(_values(own, "memory")), _groups(own)
        verdicts = sum(row["verdict_agrees"] == "True" for row in own)
        assert memory is not None, "every case has a memory"
        lines.append(
            (f"`{grid}`", len(own), f"{memory.median:.1%}", f"{memory.p95:.1%}", verdicts, len(groups), _share(groups))
        )
    return _table(
        ("grid", "cases", "memory median", "memory 95th percentile", "verdicts", "groups of axes", "within 1%"), lines
    )


def by_chip(rows: list[Row]) -> str:
    """Memory by chip."""
    chips = {chip: [row for row in rows if row["chip"] == chip] for chip in sorted({row["chip"] for row in rows})}
    memory = {chip: spread(_values(own, "memory")) for chip, own in chips.items()}
    return _table(
        ("chip", *chips),
        [
            ("cases", *(len(own) for own in chips.values())),
            ("memory median", *(f"{m.median:.1%}" for m in memory.values() if m)),
            ("memory 95th percentile", *(f"{m.p95:.1%}" for m in memory.values() if m)),
        ],
    )


def far(rows: list[Row]) -> str:
    """Cases whose memory is off by more than `FAR`, or whose verdict is another."""
    chosen = [row for row in rows if abs(float(row["memory"])) > FAR or row["verdict_agrees"] != "True"]
    chosen.sort(key=lambda row: -abs(float(row["memory"])))
    return _table(
        ("case", "predicted GiB", "compiled GiB", "difference", "verdict"),
        [
            (
                _case(row), row["predicted_gib"], row["compiled_gib"], f"{float(row['memory']):+.1%}",
                "" if row["verdict_agrees"] == "True" else "another",
            )
            for row in chosen
        ],
    )  # fmt: skip


def apart(rows: list[Row]) -> str:
    """Groups of axes whose bytes differ by more than `WITHIN`, by grid, chip and group."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        for group, value in _row_groups(row):
            if abs(value) > WITHIN:
                found.setdefault((row["grid"], row["chip"], group), []).append(value)
    return _table(
        ("grid", "chip", "group", "cases", "difference"),
        [
            (f"`{grid}`", chip, f"`{group}`", len(values), f"{min(values):+.1%} to {max(values):+.1%}")
            for (grid, chip, group), values in sorted(found.items())
        ],
    )


def _case(row: Row) -> str:
    return f"{row['model']}, {row['cluster']}, {row['seq_len']} tokens, `{row['layout']}`"


def _values(rows: list[Row], field: str) -> list[float]:
    return [float(row[field]) for row in rows if row[field]]


def _row_groups(row: Row) -> list[tuple[str, float]]:
    return [
        (group, float(value)) for group, _, value in (pair.rpartition(":") for pair in row["communication"].split())
    ]


def _groups(rows: list[Row]) -> list[float]:
    return [value for row in rows for _, value in _row_groups(row)]


def _share(groups: list[float]) -> str:
    return f"{sum(abs(value) <= WITHIN for value in groups) / max(1, len(groups)):.1%}"


def _median(groups: list[float]) -> str:
    summary = spread(groups)
    return f"{summary.median:.2%}" if summary else "-"


def _table(head: tuple, lines: list[tuple]) -> str:
    """A Markdown table."""
    written = [head, ("---",) * len(head), *lines]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in written)


if __name__ == "__main__":
    main()
