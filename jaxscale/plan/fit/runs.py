"""Reading a table of training runs: which column is which, in which unit, and which rows to keep."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxscale.errors import MeasurementError, nearest

# Quantity -> headers that are known to mean it, in plain counts.
_HEADERS: dict[str, tuple[str, ...]] = {
    "params": ("params", "parameters", "n", "num_params", "model size", "params_active_precise"),
    "tokens": ("tokens", "d", "train_tokens", "training_tokens"),
    "loss": ("loss", "val_loss", "final_loss", "c4_loss"),
    "flops": ("flops", "c", "training flop", "compute"),
    "budget": ("budget",),
    "unique_tokens": ("unique_tokens",),
    "learning_rate": ("learning_rate", "lr"),
    "batch_tokens": ("batch_tokens",),
}
QUANTITIES = tuple(_HEADERS)
_TERM = re.compile(r"^(?P<header>[^*]+?)(?:\s*\*\s*(?P<factor>[-+.\deE]+))?$")


def read_runs(
    path: Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, str] | None = None,
    drop_highest: int = 0,
) -> dict[str, np.ndarray]:
    """Read a CSV of runs as float columns [runs] named as the fits want them.

    `columns` maps a quantity to a header, if need be times a factor: {"batch_tokens": "bs*2048"}. Without it headers
    are recognised by their usual names. Tokens follow from FLOPs as C / 6N where only those are given. Rows are kept
    where every header of `where` has the given text; rows without a number in a needed column are left out;
    `drop_highest` drops that many runs of highest loss.
    """
    rows = _rows(path)
    rows = [row for row in rows if all(row.get(key) == value for key, value in (where or {}).items())]
    if not rows:
        raise MeasurementError(f"{path}: no run is left after the filter {dict(where or {})}")
    wanted = _wanted(list(rows[0]), columns or {}, str(path))
    table = {name: _numbers(rows, header) * factor for name, (header, factor) in wanted.items()}
    if "tokens" not in table and {"flops", "params"} <= table.keys():
        table["tokens"] = table["flops"] / (6.0 * table["params"])
    keep = np.all([np.isfinite(column) for column in table.values()], axis=0)
    if drop_highest and "loss" in table:
        order = np.argsort(np.where(keep, table["loss"], -np.inf))
        keep[order[len(order) - drop_highest :]] = False
    if not keep.any():
        raise MeasurementError(f"{path}: no run has a number in each of the columns {', '.join(table)}")
    return {name: column[keep] for name, column in table.items()}


def _rows(path: Path | str) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MeasurementError(f"{path}: cannot be read as a table of runs ({error})") from error


def _wanted(headers: Sequence[str], columns: Mapping[str, str], path: str) -> dict[str, tuple[str, float]]:
    """Quantity -> (header, factor): given ones first, then the usual names."""
    wanted: dict[str, tuple[str, float]] = {}
    for name, text in columns.items():
        if name not in _HEADERS:
            raise MeasurementError(
                f"column {name!r} is not one of {', '.join(_HEADERS)}.{nearest(name, _HEADERS, count=1)}"
            )
        match = _TERM.match(text.strip())
        header = match.group("header") if match else text
        if header not in headers:
            raise MeasurementError(
                f"{path}: no column {header!r}; it has {', '.join(headers)}.{nearest(header, headers)}"
            )
        wanted[name] = (header, float(match.group("factor") or 1.0) if match else 1.0)
    lowered = {header.lower(): header for header in headers if header}
    for name, known in _HEADERS.items():
        found = next((lowered[key] for key in known if key in lowered), None)
        if name not in wanted and found is not None:
            wanted[name] = (found, 1.0)
    return wanted


def _numbers(rows: Sequence[Mapping[str, str]], header: str) -> np.ndarray:
    def number(text: str) -> float:
        try:
            return float(text)
        except (TypeError, ValueError):
            return np.nan

    return np.array([number(row[header]) for row in rows])
