"""Tables of the store, its schema's version, and how an older one becomes this one.

A measurement is one row: the whole record as JSON, its SHA-256, and columns to filter by. Nothing is ever updated.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    event,
    insert,
    select,
    update,
)
from sqlalchemy import create_engine as sqlalchemy_engine
from sqlalchemy import inspect as sqlalchemy_inspect

from jaxscale.errors import StoreError

BUSY_TIMEOUT_S = 60.0
WRITES = {"jaxscale_writes": True}  # execution option of connections that write

METADATA = MetaData()
SCHEMA = Table("jaxscale_schema", METADATA, Column("version", Integer, nullable=False))
MEASUREMENTS = Table(
    "measurements",
    METADATA,
    Column("identifier", String(32), primary_key=True),
    Column("started_at", String(32), nullable=False, index=True),
    Column("status", String(16), nullable=False),
    Column("model", Text, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("layout", Text, nullable=False),
    Column("seq_len", Integer, nullable=False),
    Column("global_batch_size", Integer, nullable=False),
    Column("step_time_s", Float),
    Column("mfu", Float),
    Column("sha256", String(64), nullable=False),
    Column("record", Text, nullable=False),
)


def _create_measurements(connection: Connection) -> None:
    MEASUREMENTS.create(connection)


# One function a version: MIGRATIONS[i] turns version i into i + 1, in one transaction with the others.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_create_measurements,)
VERSION = len(MIGRATIONS)


def open_engine(url: str) -> Engine:
    """An engine whose SQLite files are safe against `kill -9` and many writers."""
    engine = sqlalchemy_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # this module says BEGIN, not the driver
    connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA journal_mode=WAL")  # readers go on while one writes
    connection.execute("PRAGMA synchronous=FULL")  # a commit that returned is on the disk


def _on_sqlite_begin(connection: Connection) -> None:
    # A writer takes its lock at once: to upgrade a reader's would fail where another wrote in between.
    writes = connection.get_execution_options().get("jaxscale_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def migrate(engine: Engine, address: str) -> None:
    """Bring a store to this version's schema; of several processes that try at once, one does."""
    if _version(engine) == VERSION:
        return
    with engine.connect().execution_options(**WRITES) as connection, connection.begin():
        SCHEMA.create(connection, checkfirst=True)
        found = connection.execute(select(SCHEMA.c.version)).scalar()
        version = found or 0
        if version > VERSION:
            raise StoreError(
                f"store {address}: its schema has version {version}, this jaxscale knows {VERSION}; update jaxscale"
            )
        for step in MIGRATIONS[version:]:
            step(connection)
        change = insert(SCHEMA) if found is None else update(SCHEMA)
        connection.execute(change.values(version=VERSION))


def _version(engine: Engine) -> int:
    with engine.connect() as connection, connection.begin():
        if not sqlalchemy_inspect(connection).has_table(SCHEMA.name):
            return 0
        return connection.execute(select(SCHEMA.c.version)).scalar() or 0
