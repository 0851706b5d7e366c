"""Tables of the store, its schema's version, and how an older one becomes this one.

A measurement is one row: the whole record as JSON, its SHA-256, and columns to filter by. It is never updated. A
claim says that somebody is measuring a program now, and until when that counts without a word from them.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy import create_engine as sqlalchemy_engine
from sqlalchemy import inspect as sqlalchemy_inspect

from jaxscale.errors import StoreError
from jaxscale.study.record import derived, readable

BUSY_TIMEOUT_S = 60.0
_MIGRATION_LOCK = 0x6A617873  # "jaxs"; of no meaning but that all take the same
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
    Column("program", String(64)),  # since version 2; empty where the surroundings are unknown
)
BY_PROGRAM = Index("ix_measurements_program", MEASUREMENTS.c.program)
CLAIMS = Table(
    "claims",
    METADATA,
    Column("program", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("expires_at", Float, nullable=False),  # seconds since 1970
)

_VERSION_1 = """
CREATE TABLE measurements (
    identifier VARCHAR(32) NOT NULL PRIMARY KEY, started_at VARCHAR(32) NOT NULL, status VARCHAR(16) NOT NULL,
    model TEXT NOT NULL, cluster TEXT NOT NULL, layout TEXT NOT NULL, seq_len INTEGER NOT NULL,
    global_batch_size INTEGER NOT NULL, step_time_s FLOAT, mfu FLOAT, sha256 VARCHAR(64) NOT NULL, record TEXT NOT NULL
)"""


def _create_measurements(connection: Connection) -> None:
    connection.execute(text(_VERSION_1))
    connection.execute(text("CREATE INDEX ix_measurements_started_at ON measurements (started_at)"))


def _add_programs_and_claims(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE measurements ADD COLUMN program VARCHAR(64)"))
    rows = connection.execute(text("SELECT identifier, sha256, record FROM measurements")).mappings()
    for measurement in readable(map(dict, rows))[0]:
        values = {name: derived(measurement)[name] for name in ("program", "identifier")}
        connection.execute(text("UPDATE measurements SET program = :program WHERE identifier = :identifier"), values)
    BY_PROGRAM.create(connection)
    CLAIMS.create(connection)


# One function a version: MIGRATIONS[i] turns version i into i + 1, in one transaction with the others.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_create_measurements, _add_programs_and_claims)
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
        if engine.dialect.name == "postgresql":  # SQLite's writers take turns anyway
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
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
