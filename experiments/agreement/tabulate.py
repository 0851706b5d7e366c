"""Predictions against compilers over the grids of a folder, as CSV, and the tables of README.md made from it.

    python experiments/agreement/tabulate.py tpu [--seconds S]
    python experiments/agreement/tabulate.py held_out [--seconds S]
    python experiments/agreement/tabulate.py held_out_2 [--seconds S]
    python experiments/agreement/tabulate.py gpu [--seconds S]
    python experiments/agreement/tabulate.py tpu --recorded

Compiles what has no kept answer yet, for at most S seconds; answers are kept, so that it can be stopped and goes on
where it was. The CSV holds every case that has an answer; the README's tables are rewritten from all CSVs. With
`--recorded` nothing is compiled: what the CSV says that the compiler made is compared with predictions of today.
"""

import argparse
import csv
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path

from jaxscale.aot.agreement import Agreement, compare, spread
from jaxscale.aot.compile import try_compile
from jaxscale.aot.request import CompileRequest
from jaxscale.aot.result import CompiledStep
from jaxscale.cli.grid import Case, cases, load_grid
from jaxscale.cost import estimate, program_flops
from jaxscale.units import GIB

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
BACKENDS = ("tpu", "held_out", "held_out_2", "gpu")
WITHIN = 0.01  # communication agrees
FAR = 0.08  # memory that is listed
KEY = ("grid", "model", "cluster", "seq_len", "layout")
Row = dict[str, str]


def main() -> None:
    """Compile, write the CSV, rewrite the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backend", choices=BACKENDS)
    parser.add_argument("--seconds", type=float, default=math.inf, metavar="S")
    parser.add_argument("--recorded", action="store_true", help="compile nothing; predict the CSV's cases again")
    arguments = parser.parse_args()
    folder, path = FOLDER / arguments.backend, FOLDER / f"{arguments.backend}.csv"
    rows = list(recorded_rows(folder, path) if arguments.recorded else compiled_rows(folder, arguments.seconds))
    write_csv(path, rows)
    README.write_text(with_tables(README.read_text()))


def grid_cases(folder: Path) -> list[tuple[str, Case]]:
    """Every case of a folder's grids, with its grid's name."""
    return [(path.stem, case) for path in sorted(folder.glob("*.yaml")) for case in cases(load_grid(str(path)))]


def compiled_rows(folder: Path, seconds: float) -> Iterator[Row]:
    """A row for every case with an answer; what compiles after `seconds` is left for another time."""
    found = grid_cases(folder)
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
        row = case_row(grid, case, compiled_fields(step))
        print(f"{number}/{len(found)} {case}: memory {row['memory']}, {step.total_s:.0f} s", flush=True)
        yield row


def recorded_rows(folder: Path, path: Path) -> Iterator[Row]:
    """The rows of a CSV, predicted anew."""
    kept = {tuple(row[name] for name in KEY): row for row in read_csv(path)}
    for grid, case in grid_cases(folder):
        key = case_key(grid, case)
        if recorded := kept.get(tuple(key.values())):
            yield case_row(grid, case, recorded)


def case_key(grid: str, case: Case) -> Row:
    """What names a case in a CSV."""
    values = (grid, case.shape.name, case.cluster.name, str(case.workload.seq_len), str(case.layout))
    return dict(zip(KEY, values, strict=True))


def compiled_fields(step: CompiledStep) -> Row:
    """What the compiler made, as the CSV has it; a program that does not fit is no step that computes or sends."""
    fits = step.status == "compiled"
    sent = " ".join(f"{group}:{size:.5g}" for group, size in sorted(step.comm_bytes.items()))
    return {
        "status": step.status,
        "compiled_gib": f"{step.peak_bytes / GIB:.3f}",
        "compiled_flops": f"{step.flops:.6g}" if fits else "",
        "compiled_comm_bytes": sent if fits else "",
    }


def case_row(grid: str, case: Case, compiled: Row) -> Row:
    """One case: what was compiled, what is predicted, and relative differences, predicted over compiled less one."""
    predicted = estimate(case.shape, case.workload, case.cluster, case.layout)
    sent = {group: float(size) for group, size in _pairs(compiled["compiled_comm_bytes"])}
    made = dataclasses.replace(
        predicted,
        tier="compiled",
        memory_bytes=float(compiled["compiled_gib"]) * GIB,
        memory_parts_bytes={},
        comm_bytes=sent,
        hardware_flops=float(compiled["compiled_flops"] or "nan"),
    )
    flops = program_flops(case.shape, case.workload, case.cluster, case.layout)
    agreement = compare(predicted, made, program_flops=flops, fitted=compiled["status"] == "compiled")
    own = predicted.memory_bytes - predicted.memory_parts_bytes.get("reserved", 0.0)
    return {
        **case_key(grid, case),
        "chip": case.cluster.chip.name,
        **{name: compiled[name] for name in ("status", "compiled_gib", "compiled_flops", "compiled_comm_bytes")},
        "predicted_gib": f"{own / GIB:.3f}",
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


def read_csv(path: Path) -> list[Row]:
    """The rows of a CSV; none where it is not written yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def with_tables(text: str) -> str:
    """The README with its tables made from the CSVs: what stands between the marks of each is replaced."""
    for backend in BACKENDS:
        rows = read_csv(FOLDER / f"{backend}.csv")
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
    return [(group, float(value)) for group, value in _pairs(row["communication"])]


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Read `fsdp:1.5 tensor:2`."""
    for pair in text.split():
        group, _, value = pair.rpartition(":")
        yield group, value


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
