"""Which sizes of a model suit the hardware: predicted, as the TPU compiler sees them, measured small on one core.

    python -m experiments.model_shapes.study [predict|compile|measure ...]

Does all three where none is named. Writes CSV files with their provenance into results/ and prints the tables of
README.md.
"""

import argparse
import os
import statistics
from pathlib import Path

from experiments.results_io import points, write_rows
from jaxscale.aot.cache import Cache
from jaxscale.aot.pool import compile_layouts
from jaxscale.aot.request import CompileRequest
from jaxscale.cost import metrics, problem
from jaxscale.measure.pace import ratios, running_step, typical_s
from jaxscale.measure.step_child import take_devices
from jaxscale.types.measurement import MeasureRequest

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PREDICTED = ("predict.yaml", "predict_small.yaml")
ONE_CORE = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
GIB = 2.0**30
COMPUTED = ("matmul", "elementwise", "recompute", "optimizer")  # parts of a predicted step that have cycles
TURNS = 25  # of every shape with the first


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


def compiled(spec: Path) -> list[dict]:
    """Seconds by the TPU compiler's own cycles and peak memory, each beside the prediction; relative to the first.

    Cycles leave out collectives and attention kernels; the prediction that they stand beside is of the matmuls and
    element-wise passes only.
    """
    found = points(spec)
    asked = [point.request for point in found]
    requests = [CompileRequest(shape=a.shape, workload=a.workload, layout=a.layout, cluster=a.cluster) for a in asked]
    steps = dict(compile_layouts(requests, workers=1, cache=Cache()))
    computed = [sum(point.predicted.time_parts_s[part] for part in COMPUTED) for point in found]
    first = model_flops(asked[0]) / steps[0].cycles_s, model_flops(asked[0]) / computed[0]
    return [
        {
            "cluster": a.cluster.name, "model": a.shape.name, "status": steps[index].status,
            "compiler_cycles_s": f"{steps[index].cycles_s:.5g}", "predicted_s": f"{computed[index]:.5g}",
            "relative": f"{model_flops(a) / steps[index].cycles_s / first[0]:.4f}",
            "predicted_relative": f"{model_flops(a) / computed[index] / first[1]:.4f}",
            "peak_gib": f"{steps[index].peak_bytes / GIB:.3f}",
            "predicted_gib": f"{found[index].predicted.memory_bytes / GIB:.3f}",
        }
        for index, a in enumerate(asked)
    ]  # fmt: skip


def measured(spec: Path) -> list[dict]:
    """FLOP/s of every shape by its steps in turns with those of the first, measured and predicted, relative to it."""
    found = points(spec)
    first = found[0].request
    devices = take_devices(first.cluster.num_devices, emulated=True)
    reference = running_step(first.shape, first.workload, first.layout, devices)
    rows = []
    for point in found:
        asked = point.request
        more_work = model_flops(asked) / model_flops(first)
        turns = ratios(running_step(asked.shape, asked.workload, asked.layout, devices), reference, TURNS)
        low, middle, high = statistics.quantiles(turns, n=4)
        predicted_ratio = point.predicted.step_time_s / found[0].predicted.step_time_s
        rows.append(
            {
                "model": asked.shape.name, "ratio": f"{middle:.4f}", "low_quartile": f"{low:.4f}",
                "high_quartile": f"{high:.4f}", "relative": f"{more_work / middle:.4f}",
                "predicted_relative": f"{more_work / predicted_ratio:.4f}",
                "reference_s": f"{typical_s(reference):.5g}",
            }
        )  # fmt: skip
    return rows


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
    rows = compiled(FOLDER / "compile.yaml")
    write_rows(RESULTS / "compiled.csv", rows)
    print_table(rows, ("model", "compiler_cycles_s", "relative", "predicted_relative", "peak_gib", "predicted_gib"))


def measure_part() -> None:
    """Measure on one core; write, print."""
    os.environ["XLA_FLAGS"] = ONE_CORE
    rows = measured(FOLDER / "measure.yaml")
    write_rows(RESULTS / "measured.csv", rows)
    print_table(rows, ("model", "ratio", "relative", "predicted_relative"))


PARTS = {"predict": predict_part, "compile": compile_part, "measure": measure_part}


def main() -> None:
    """Do the parts that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all where none is named")
    for part in parser.parse_args().parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
