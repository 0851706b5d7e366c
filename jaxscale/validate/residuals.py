"""Errors against every factor of a run, so that missing physics shows as a pattern."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxscale.calibrate import Run
from jaxscale.validate.predict import Predictions

MOST_LEVELS = 8  # a factor with more values is cut into bins of equal counts

FACTORS: dict[str, Callable[[Run], float | str]] = {
    "chip": lambda r: r.cluster.chip.name,
    "stack": lambda r: r.software.stack,
    "chips": lambda r: r.cluster.num_chips,
    "data x fsdp": lambda r: r.layout.data * r.layout.fsdp,
    "tensor": lambda r: r.layout.tensor,
    "pipeline": lambda r: r.layout.pipeline,
    "context": lambda r: r.layout.context,
    "expert": lambda r: r.layout.expert,
    "virtual stages": lambda r: r.layout.virtual_stages,
    "microbatch size": lambda r: r.layout.microbatch_size,
    "microbatches": lambda r: r.num_microbatches,
    "sequence parallel": lambda r: str(r.layout.sequence_parallel).lower(),
    "remat": lambda r: r.layout.remat,
    "attention": lambda r: r.software.attention_kernel,
    "fused norm": lambda r: str(r.software.fused_norm).lower(),
    "matmul format": lambda r: r.software.matmul,
    "d_model": lambda r: r.shape.d_model,
    "layers": lambda r: r.shape.num_layers,
    "sequence length": lambda r: r.workload.seq_len,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Runs that share a factor's value or range: their number, median error and median absolute error (of the log)."""

    factor: str
    label: str
    runs: int
    bias: float
    median_error: float


def log_errors(runs: Sequence[Run], predictions: Predictions) -> np.ndarray:
    """log(predicted / measured) of every run, NaN where it was not timed, [n]."""
    measured = np.array([run.step_time_s if run.outcome == "ok" else np.nan for run in runs])
    return np.log(predictions.step_time_s / measured)


def residual_levels(runs: Sequence[Run], predictions: Predictions) -> list[Level]:
    """Errors by factor: one entry for every value, or bin of values; factors that do not vary are left out."""
    errors = log_errors(runs, predictions)
    timed = np.flatnonzero(np.isfinite(errors)).tolist()
    levels: list[Level] = []
    columns: dict[str, list[float | str]] = {name: [read(runs[i]) for i in timed] for name, read in FACTORS.items()}
    total = sum(predictions.time_parts_s.values())
    for part, seconds in predictions.time_parts_s.items():
        columns[f"share of {part}"] = [float(x) for x in (seconds / total)[timed]]
    for factor, values in columns.items():
        labels = _labels(values)
        if len(set(labels)) < 2:
            continue
        for label in dict.fromkeys(
            sorted(labels, key=lambda text: (len(text), text)) if _is_words(values) else _in_order(values, labels)
        ):
            here = errors[timed][np.array(labels) == label]
            levels.append(
                Level(
                    factor=factor, label=label, runs=len(here), bias=float(np.median(here)),
                    median_error=float(np.median(np.abs(here))),
                )
            )  # fmt: skip
    return levels


def _is_words(values: Sequence[float | str]) -> bool:
    return any(isinstance(value, str) for value in values)


def _in_order(values: Sequence[float | str], labels: Sequence[str]) -> list[str]:
    return [labels[i] for i in np.argsort(np.array(values, dtype=float), kind="stable")]


def _labels(values: Sequence[float | str]) -> list[str]:
    """Values as words, or the range of the bin that each falls into."""
    if _is_words(values) or len(set(values)) <= MOST_LEVELS:
        return [value if isinstance(value, str) else f"{value:g}" for value in values]
    numbers = np.array(values, dtype=float)
    edges = np.unique(np.quantile(numbers, np.linspace(0.0, 1.0, MOST_LEVELS + 1)))
    bins = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, max(len(edges) - 2, 0))
    return [f"{edges[b]:.3g}-{edges[min(b + 1, len(edges) - 1)]:.3g}" for b in bins]
