"""The store of measurements: a SQLite file by default, any database that SQLAlchemy speaks to by URL.

Many processes may write at once. `save` returns when the record is on the disk; a process that is killed loses at most
the record that it was about to save.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from jaxscale.errors import StoreError, nearest
from jaxscale.study.record import Row, fault_of, from_row, to_row
from jaxscale.study.schema import MEASUREMENTS, WRITES, migrate, open_engine
from jaxscale.types.measurement import Measurement

_ADVICE = {  # by SQLite's words
    "database disk image is malformed": "; `sqlite3 FILE .recover | sqlite3 NEW` saves what can still be read of it",
    "database or disk is full": "; everything that was saved is kept: make room and run it again",
}


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
        with self.writing() as connection:
            return sum(self.add(connection, row) for row in rows)

    def add(self, connection: Connection, row: Row) -> bool:
        """Add one row within a transaction of `writing`; returns whether it is new."""
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
        program: str | None = None, limit: int | None = None,
    ) -> list[Row]:  # fmt: skip
        """Rows, newest first, that are of a model, a cluster, a status and a program."""
        query = select(MEASUREMENTS).order_by(MEASUREMENTS.c.started_at.desc(), MEASUREMENTS.c.identifier)
        wanted = {"model": model, "cluster": cluster, "status": status, "program": program}
        for column, value in wanted.items():
            if value is not None:
                query = query.where(MEASUREMENTS.c[column] == value)
        with self.reading() as connection:
            return [dict(row._mapping) for row in connection.execute(query.limit(limit))]

    def measurements(self, **filters: Any) -> list[Measurement]:
        """As `rows`, as measurements; a record that cannot be believed is an error."""
        return [from_row(row) for row in self.rows(**filters)]

    def find(self, prefix: str) -> Measurement:
        """The measurement whose identifier begins with `prefix`."""
        column = MEASUREMENTS.c.identifier
        with self.reading() as connection:
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
            with self.reading() as connection:
                said = connection.execute(text("PRAGMA integrity_check")).scalars().all()
            faults += [Fault(identifier="", what=line) for line in said if line != "ok"]
        found = ((row["identifier"], fault_of(row)) for row in self.rows())
        return faults + [Fault(identifier=identifier, what=what) for identifier, what in found if what]

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: all of it happens, and is on the disk when this ends, or none."""
        with self._errors(), self._engine.connect().execution_options(**WRITES) as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the store."""
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
            words = str(getattr(error, "orig", None) or error)
            raise StoreError(f"store {self._address}: {words}{_ADVICE.get(words, '')}") from error
