"""How long a context grouped-query attention makes affordable: predicted, and checked by the TPU compiler.

    python -m experiments.long_context.study [predict|compile ...]

Does both where none is named. Writes CSV files with their provenance into results/ and prints the tables of README.md.
"""

import argparse
from pathlib import Path

from experiments.results_io import points, write_rows
from jaxscale.aot.cache import Cache
from jaxscale.aot.pool import compile_layouts
from jaxscale.aot.request import CompileRequest
from jaxscale.types import Estimate, Layout

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
GIB = 2.0**30


def predict_part() -> None:
    """The best layout of every cell, and what a token costs in it."""
    rows = []
    for point in points(FOLDER / "predict.yaml"):
        asked, e = point.request, point.predicted
        rows.append(
            {
                "cluster": asked.cluster.name, "seq_len": asked.workload.seq_len,
                "num_kv_heads": asked.shape.num_kv_heads, "step_time_s": f"{e.step_time_s:.4g}",
                "tokens_per_s_per_chip": f"{e.tokens_per_s_per_chip:.4g}", "mfu": f"{e.mfu:.3f}",
                "memory_gib": f"{e.memory_bytes / GIB:.1f}", "context_gib": f"{_context_bytes(e) / GIB:.2f}",
                "layout": _short(e.layout),
            }
        )  # fmt: skip
    write_rows(RESULTS / "predicted.csv", rows)
    print_table(rows)


def _context_bytes(e: Estimate) -> float:
    """Bytes that one device sends a step on groups with the context axis."""
    return sum(size for group, size in e.comm_bytes.items() if "context" in group.split("+"))


def _short(layout: Layout) -> str:
    return str(layout).replace("microbatch_size", "microbatch")


def compile_part() -> None:
    """Memory and traffic of the best layouts, predicted and by the compiler, which stops once memory is assigned."""
    found = points(FOLDER / "compile.yaml")
    asked = [point.request for point in found]
    requests = [
        CompileRequest(shape=a.shape, workload=a.workload, layout=a.layout, cluster=a.cluster, quick=True)
        for a in asked
    ]
    steps = dict(compile_layouts(requests, workers=1, cache=Cache()))
    rows = []
    for index, point in enumerate(found):
        step, e = steps[index], point.predicted
        moved = sum(step.comm_bytes.values())
        rows.append(
            {
                "seq_len": point.request.workload.seq_len, "num_kv_heads": point.request.shape.num_kv_heads,
                "status": step.status, "compiled_gib": f"{step.peak_bytes / GIB:.2f}",
                "predicted_gib": f"{e.memory_bytes / GIB:.2f}", "compiled_moved_gib": f"{moved / GIB:.2f}",
                "predicted_moved_gib": f"{sum(e.comm_bytes.values()) / GIB:.2f}", "layout": _short(e.layout),
            }
        )  # fmt: skip
    write_rows(RESULTS / "compiled.csv", rows)
    print_table(rows)


def print_table(rows: list[dict]) -> None:
    """Print rows as Markdown."""
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


PARTS = {"predict": predict_part, "compile": compile_part}


def main() -> None:
    """Do the parts that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all where none is named")
    for part in parser.parse_args().parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
