"""The store's rows as a CSV or Parquet file, and back without loss: the record travels as JSON in a column."""

import importlib.util
from pathlib import Path
from typing import Any

from jaxscale.errors import StoreError
from jaxscale.study.record import Row, derived, fault_of, from_row
from jaxscale.study.schema import MEASUREMENTS

COLUMNS = tuple(column.name for column in MEASUREMENTS.columns)
_WHOLE = ("seq_len", "global_batch_size")
_OPTIONAL = ("step_time_s", "mfu")
_LATER = ("program",)  # columns that files of older versions lack; they follow from the record


def write_table(rows: list[Row], path: Path) -> None:
    """Write rows to `path`; its ending says whether as CSV or Parquet."""
    import pandas as pd

    kind = _kind(path)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    temporary = path.with_name(f".{path.name}.partial")
    try:
        if kind == "csv":
            frame.to_csv(temporary, index=False)
        else:
            frame.to_parquet(temporary, index=False)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_table(path: Path) -> list[Row]:
    """Read rows that `write_table` wrote; every record must be what was saved."""
    import pandas as pd

    kind = _kind(path)
    try:
        # As text: pandas' parser of numbers has been off in the last digit, and takes a model named NA for none.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False) if kind == "csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as exported runs: {error}") from error
    missing = [name for name in COLUMNS if name not in (*frame.columns, *_LATER)]
    if missing:
        raise StoreError(f"{path}: columns {', '.join(missing)} missing; only `jaxscale runs export` makes such files")
    present = [name for name in COLUMNS if name in frame.columns]
    rows = [_plain(row) for row in frame[present].to_dict("records")]
    for line, row in enumerate(rows, start=1):
        if what := fault_of(row):
            raise StoreError(f"{path}: row {line}: {what}")
    return [derived(from_row(row)) | row for row in rows] if len(present) < len(COLUMNS) else rows


def _plain(row: dict[Any, Any]) -> Row:
    """A row of a frame as plain Python values: numbers from text, and None for what is empty."""
    plain: Row = {str(name): value for name, value in row.items()}
    plain |= {name: int(plain[name]) for name in _WHOLE}
    return plain | {name: _number(plain[name]) for name in _OPTIONAL}


def _number(value: Any) -> float | None:
    return None if value in ("", None) or value != value else float(value)


def _kind(path: Path) -> str:
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("csv", "parquet"):
        raise StoreError(f"{path}: the file's ending must be .csv or .parquet")
    if kind == "parquet" and not importlib.util.find_spec("pyarrow"):
        raise StoreError(f"{path}: Parquet needs pyarrow, which is not installed: pip install pyarrow, or use .csv")
    return kind
