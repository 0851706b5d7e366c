"""Which sizes of a model suit the hardware: predicted, as the TPU compiler sees them, measured small on one core.

    python -m experiments.model_shapes.study [predict|compile|measure ...]

Does all three where none is named. Writes CSV files with their provenance into results/ (measured.csv holds every run,
as `jaxscale runs export` writes it) and prints the tables of README.md.
"""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from experiments.results_io import points, sweep, write_rows
from jaxscale.aot.pool import compile_layouts
from jaxscale.aot.request import CompileRequest
from jaxscale.cost import metrics, problem
from jaxscale.study import Store
from jaxscale.types.measurement import Measurement, MeasureRequest

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PREDICTED = ("predict.yaml", "predict_small.yaml")
ONE_CORE = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def model_flops(asked: MeasureRequest) -> float:
    """Useful FLOPs of one step: padding is not among them."""
    p = problem(asked.shape, asked.workload, asked.cluster)
    return float(asked.workload.tokens_per_step * metrics.model_flops_per_token(p))


def predicted(spec: Path) -> list[dict]:
    """FLOP/s of every shape, relative to the first of the file on the same cluster and layout."""
    rows = []
    base: dict[tuple[str, str], float] = {}
    for point in points(spec):
        asked, e = point.request, point.predicted
        rate = model_flops(asked) / e.step_time_s
        cell = asked.cluster.name, str(asked.layout)
        rows.append(
            {
                "cluster": cell[0], "layout": cell[1], "model": asked.shape.name, "step_time_s": f"{e.step_time_s:.5g}",
                "mfu": f"{e.mfu:.4f}", "relative": f"{rate / base.setdefault(cell, rate):.4f}",
            }
        )  # fmt: skip
    return rows


def compiled() -> list[dict]:
    """Time by the TPU compiler's own cycles (collectives and attention kernels left out), beside the first shape."""
    asked = [point.request for point in points(FOLDER / "compile.yaml")]
    requests = [CompileRequest(shape=a.shape, workload=a.workload, layout=a.layout, cluster=a.cluster) for a in asked]
    steps = dict(compile_layouts(requests, workers=1))
    rates = [model_flops(asked[index]) / steps[index].cycles_s for index in range(len(asked))]
    return [
        {
            "cluster": a.cluster.name, "model": a.shape.name, "status": steps[index].status,
            "compiler_cycles_s": f"{steps[index].cycles_s:.5g}", "peak_bytes": round(steps[index].peak_bytes),
            "relative": f"{rates[index] / rates[0]:.4f}",
        }
        for index, a in enumerate(asked)
    ]  # fmt: skip


def measured(runs: Iterable[Measurement]) -> list[dict]:
    """FLOP/s of every shape by its fastest step, relative to the model as it is."""
    fastest: dict[str, tuple[float, MeasureRequest]] = {}
    for run in runs:
        if run.status == "ok":
            seconds, name = min(run.step_times_s), run.request.shape.name
            fastest[name] = min(fastest.get(name, (seconds, run.request)), (seconds, run.request), key=lambda x: x[0])
    base_s, base = fastest["small"]
    base_rate = model_flops(base) / base_s
    return [
        {
            "model": name,
            "fastest_step_s": f"{seconds:.5g}",
            "relative": f"{model_flops(asked) / seconds / base_rate:.4f}",
        }
        for name, (seconds, asked) in fastest.items()
    ]


def print_table(rows: list[dict], columns: tuple[str, ...]) -> None:
    """Print some columns as Markdown."""
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in columns) + " |")


def print_predicted(rows: list[dict]) -> None:
    """Print one line a shape, one column a cluster and layout."""
    cells = list(dict.fromkeys((row["cluster"], row["layout"]) for row in rows))
    names = [f"{cluster}, {'tensor=4' if 'tensor' in layout else 'fsdp=8'}" for cluster, layout in cells]
    models = dict.fromkeys(row["model"] for row in rows)
    relative = {(row["model"], row["cluster"], row["layout"]): float(row["relative"]) for row in rows}
    print_table(
        [
            {
                "shape": model,
                **{n: _percent(relative.get((model, *cell))) for n, cell in zip(names, cells, strict=True)},
            }
            for model in models
        ],
        ("shape", *names),
    )


def _percent(relative: float | None) -> str:
    return "cannot run" if relative is None else f"{100 * (relative - 1):+.1f}%"


def predict_part() -> None:
    """Predict, write, print."""
    tables = [predicted(FOLDER / spec) for spec in PREDICTED]
    write_rows(RESULTS / "predicted.csv", [row for rows in tables for row in rows])
    for rows in tables:
        print_predicted(rows)


def compile_part() -> None:
    """Compile, write, print."""
    rows = compiled()
    write_rows(RESULTS / "compiled.csv", rows)
    print_table(rows, ("model", "compiler_cycles_s", "relative"))


def measure_part() -> None:
    """Measure on one core, so that what else runs on the machine disturbs little; write, print."""
    os.environ["XLA_FLAGS"] = ONE_CORE
    store = sweep(FOLDER / "measure.yaml", RESULTS / "measured.csv")
    rows = measured(Store(str(store)).measurements(cluster="cpu:1"))
    write_rows(RESULTS / "measured_summary.csv", rows)
    print_table(rows, ("model", "fastest_step_s", "relative"))


PARTS = {"predict": predict_part, "compile": compile_part, "measure": measure_part}


def main() -> None:
    """Do the parts that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all where none is named")
    for part in parser.parse_args().parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
