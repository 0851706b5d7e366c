"""The store of measurements: a SQLite file by default, any database that SQLAlchemy speaks to by URL.

Many processes may write at once. `save` returns when the record is on the disk; a process that is killed loses at most
the record that it was about to save.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from jaxscale.aot.codec import decode, encode
from jaxscale.errors import JaxscaleError, StoreError, nearest
from jaxscale.study.schema import MEASUREMENTS, WRITES, migrate, open_engine
from jaxscale.types.measurement import Measurement

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something wrong with a stored record (or, without an identifier, with the store)."""

    identifier: str
    what: str


class Store:
    """Measurements in a database. `address` is a file's path or a URL such as `postgresql://host/name`."""

    def __init__(self, address: str, *, must_exist: bool = False) -> None:
        self._address = address
        is_file = "://" not in address
        if is_file and must_exist and not Path(address).is_file():
            raise StoreError(f"store {address}: there is no such file; `jaxscale measure ... --store FILE` makes one")
        try:
            self._engine = open_engine(f"sqlite:///{address}" if is_file else address)
        except (ArgumentError, ImportError) as error:
            raise StoreError(f"store {address}: not a file or a database URL that can be used: {error}") from error
        with self._errors():
            migrate(self._engine, address)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def save(self, measurement: Measurement) -> None:
        """Store one measurement; it is on the disk when this returns."""
        self.add_rows([to_row(measurement)])

    def add_rows(self, rows: Iterable[Row]) -> int:
        """Add rows of another store, all or none; returns how many are new.

        A record that is here already is left alone; one that differs under the same identifier is an error.
        """
        added = 0
        with self._errors(), self._engine.connect().execution_options(**WRITES) as connection, connection.begin():
            for row in rows:
                added += self._add(connection, row)
        return added

    def _add(self, connection: Connection, row: Row) -> bool:
        known = connection.execute(
            select(MEASUREMENTS.c.sha256).where(MEASUREMENTS.c.identifier == row["identifier"])
        ).scalar()
        if known is None:
            connection.execute(insert(MEASUREMENTS).values(row))
        elif known != row["sha256"]:
            raise StoreError(f"store {self._address}: another record has the identifier {row['identifier']}")
        return known is None

    def rows(
        self, *, model: str | None = None, cluster: str | None = None, status: str | None = None,
        limit: int | None = None,
    ) -> list[Row]:  # fmt: skip
        """Rows, newest first, that are of a model, a cluster and a status."""
        query = select(MEASUREMENTS).order_by(MEASUREMENTS.c.started_at.desc(), MEASUREMENTS.c.identifier)
        for column, value in (("model", model), ("cluster", cluster), ("status", status)):
            if value is not None:
                query = query.where(MEASUREMENTS.c[column] == value)
        with self._reading() as connection:
            return [dict(row._mapping) for row in connection.execute(query.limit(limit))]

    def measurements(self, **filters: Any) -> list[Measurement]:
        """As `rows`, as measurements; a record that cannot be believed is an error."""
        return [from_row(row) for row in self.rows(**filters)]

    def find(self, prefix: str) -> Measurement:
        """The measurement whose identifier begins with `prefix`."""
        column = MEASUREMENTS.c.identifier
        with self._reading() as connection:
            query = select(MEASUREMENTS).where(column.startswith(prefix, autoescape=True)).limit(2)
            found = [dict(row._mapping) for row in connection.execute(query)] if prefix else []
            if len(found) == 1:
                return from_row(found[0])
            known = connection.execute(select(column)).scalars().all()
        if found:
            raise StoreError(f"store {self._address}: several runs begin with {prefix!r}; write more of the identifier")
        raise StoreError(f"store {self._address}: no run begins with {prefix!r}.{nearest(prefix, known, count=1)}")

    def check(self) -> list[Fault]:
        """Everything wrong with the store: the database's own test, then every record's digest and content."""
        faults = []
        if self._engine.dialect.name == "sqlite":
            with self._reading() as connection:
                said = connection.execute(text("PRAGMA integrity_check")).scalars().all()
            faults += [Fault(identifier="", what=line) for line in said if line != "ok"]
        found = ((row["identifier"], fault_of(row)) for row in self.rows())
        return faults + [Fault(identifier=identifier, what=what) for identifier, what in found if what]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._errors(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn a database's complaint into one sentence."""
        try:
            yield
        except IntegrityError as error:
            raise StoreError(f"store {self._address}: a record breaks a rule of the table: {error.orig}") from error
        except SQLAlchemyError as error:
            words = getattr(error, "orig", None) or error
            raise StoreError(f"store {self._address}: {words}") from error


def fault_of(row: Row) -> str:
    """What is wrong with a row; empty where nothing is."""
    try:
        measurement = from_row(row)
    except StoreError as error:
        return str(error)
    wrong = [name for name, value in to_row(measurement).items() if row[name] != value]
    return f"{', '.join(wrong)} not as in the record" if wrong else ""


def to_row(measurement: Measurement) -> Row:
    """A measurement as a row: the record, its digest, and what to filter by."""
    asked = measurement.request
    record = json.dumps(encode(measurement), sort_keys=True)
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
        "sha256": digest(record),
        "record": record,
    }


def from_row(row: Row) -> Measurement:
    """The measurement of a row; StoreError where its digest is wrong or it cannot be read."""
    where = f"run {row['identifier']}"
    if digest(row["record"]) != row["sha256"]:
        raise StoreError(f"{where}: the record is not what was saved (its SHA-256 differs)")
    try:
        return decode(Measurement, json.loads(row["record"]))
    except (ValueError, TypeError, KeyError, JaxscaleError) as error:
        raise StoreError(f"{where}: the record cannot be read: {error}") from error


def digest(record: str) -> str:
    """SHA-256 of a record's text."""
    return hashlib.sha256(record.encode()).hexdigest()
