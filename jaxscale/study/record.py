"""A measurement as a row of the store and back; and the digest of the program that a measurement ran."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from jaxscale.errors import JaxscaleError, StoreError
from jaxscale.types.codec import decode, encode
from jaxscale.types.measurement import Measurement, MeasureRequest

Row = dict[str, Any]

# Flags that say where a process runs and what it prints, not what it computes.
_PLACE_FLAGS = ("JAX_COMPILATION_CACHE", "JAX_COORDINATOR", "JAX_LOG", "JAX_NUM_PROCESSES", "JAX_PROCESS", "JAX_TRACE")


def program_of(
    request: MeasureRequest, versions: Mapping[str, str], source_digest: str, flags: Mapping[str, str]
) -> str:
    """A digest of everything that decides which program runs: what was asked, code, versions and flags.

    Of the cluster that is its devices, not what is believed of their speed. Fields at their defaults are left out, so
    that a field added later leaves the digests of older records as they are.
    """
    asked = _stated(dataclasses.replace(request, trace_dir=""))
    cluster = request.cluster
    chip = "cpu" if request.emulated else cluster.chip.name
    parts = {
        "request": asked | {"cluster": [chip, cluster.num_devices, cluster.chips_per_host, cluster.num_slices]},
        "versions": dict(versions),
        "source": source_digest,
        "flags": {name: value for name, value in flags.items() if not name.startswith(_PLACE_FLAGS)},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _stated(value: Any) -> Any:
    """A value as JSON, without the fields of dataclasses that are at their defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: _stated(found) for f, found in fields if found != f.default}
    if isinstance(value, tuple | list):
        return [_stated(item) for item in value]
    return encode(value)


def to_row(measurement: Measurement) -> Row:
    """A measurement as a row: the record, its digest, and what to filter by."""
    record = json.dumps(encode(measurement), sort_keys=True)
    return derived(measurement) | {"sha256": digest(record), "record": record}


def derived(measurement: Measurement) -> Row:
    """The columns that repeat what the record says."""
    asked, seen = measurement.request, measurement.surroundings
    return {
        "identifier": measurement.identifier,
        "started_at": measurement.started_at,
        "status": measurement.status,
        "model": asked.shape.name,
        "cluster": asked.cluster.name,
        "layout": str(asked.layout),
        "seq_len": asked.workload.seq_len,
        "global_batch_size": asked.workload.global_batch_size,
        "step_time_s": measurement.median_s,
        "mfu": measurement.mfu,
        "program": program_of(asked, seen.versions, seen.source_digest, seen.flags) if seen else "",
    }


def from_row(row: Row) -> Measurement:
    """The measurement of a row; StoreError where its digest is wrong or it cannot be read."""
    where = f"run {row['identifier']}"
    if digest(row["record"]) != row["sha256"]:
        raise StoreError(f"{where}: the record is not what was saved (its SHA-256 differs)")
    try:
        return decode(Measurement, json.loads(row["record"]))
    except (ValueError, TypeError, KeyError, AttributeError, JaxscaleError) as error:
        raise StoreError(f"{where}: the record cannot be read: {error}") from error


def fault_of(row: Row) -> str:
    """What is wrong with a row; empty where nothing is. Columns that the row lacks are not missed."""
    try:
        measurement = from_row(row)
    except StoreError as error:
        return str(error)
    wrong = [name for name, value in derived(measurement).items() if row.get(name, value) != value]
    return f"{', '.join(wrong)} not as in the record" if wrong else ""


def readable(rows: Iterable[Row]) -> tuple[list[Measurement], list[str]]:
    """Measurements of rows, and the faults of those that cannot be believed."""
    measurements, faults = [], []
    for row in rows:
        try:
            measurements.append(from_row(row))
        except StoreError as error:
            faults.append(str(error))
    return measurements, faults


def digest(record: str) -> str:
    """SHA-256 of a record's text."""
    return hashlib.sha256(record.encode()).hexdigest()
