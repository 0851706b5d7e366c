"""Who measures what right now: leases in the store, so that sweeps on one store share the work.

A claim counts until its lease ends; its owner renews it while it measures. A sweep that was killed therefore blocks
nobody for longer than a lease, and on the same host not at all. Times are the hosts' clocks: they must agree to within
a fraction of a lease.
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import Connection, Update, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from jaxscale.errors import StoreError
from jaxscale.study.record import to_row
from jaxscale.study.schema import CLAIMS, MEASUREMENTS
from jaxscale.study.store import Store
from jaxscale.types.measurement import Measurement

LEASE_S = 60.0
TRANSIENT = ("hang", "crash")  # outcomes that another try may change

Answer = Literal["yours", "done", "taken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Somebody that measures."""

    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)


def num_measured(connection: Connection, program: str, *, retry: bool = False) -> int:
    """Stored measurements of a program; with `retry`, those that crashed or hung do not count."""
    query = select(func.count()).select_from(MEASUREMENTS).where(MEASUREMENTS.c.program == program)
    if retry:
        query = query.where(MEASUREMENTS.c.status.not_in(TRANSIENT))
    return connection.execute(query).scalar_one()


def claim(store: Store, program: str, owner: Owner, *, retry: bool = False) -> Answer:
    """Ask for a program: `yours` to measure while the lease is renewed, `done` already, or `taken` by another."""
    with store.writing() as connection:
        if not _take(connection, program, owner):
            return "taken"
        # Counted after it was taken: where writers wait for each other's row, the last one's record is now visible.
        if not num_measured(connection, program, retry=retry):
            return "yours"
        _let_go(connection, program, owner)
        return "done"


def _take(connection: Connection, program: str, owner: Owner) -> bool:
    now = time.time()
    values = {"owner": owner.name, "host": owner.host, "pid": owner.pid, "expires_at": now + LEASE_S}
    of_program = CLAIMS.c.program == program
    found = connection.execute(select(CLAIMS).where(of_program)).first()
    if found is None:
        try:
            connection.execute(insert(CLAIMS).values(program=program, **values))
        except IntegrityError:  # another was first; SQLite's writers take turns and never come here
            return False
        return True
    if found.owner != owner.name and found.expires_at > now and not _is_gone(found.host, found.pid, owner):
        return False
    # Only as it was seen: another may have taken it over in between.
    as_seen = (CLAIMS.c.owner == found.owner) & (CLAIMS.c.expires_at == found.expires_at)
    return connection.execute(update(CLAIMS).where(of_program & as_seen).values(**values)).rowcount == 1


def _is_gone(host: str, pid: int, owner: Owner) -> bool:
    """Whether a process of this host has ended; those of other hosts are given their lease."""
    if host != owner.host:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _let_go(connection: Connection, program: str, owner: Owner) -> None:
    connection.execute(delete(CLAIMS).where((CLAIMS.c.program == program) & (CLAIMS.c.owner == owner.name)))


def save_claimed(store: Store, measurement: Measurement, program: str, owner: Owner) -> None:
    """Store what was measured and give the claim back, in one transaction."""
    row = to_row(measurement)
    with store.writing() as connection:
        store.add(connection, row)
        _let_go(connection, program, owner)


@contextlib.contextmanager
def renewing(store: Store, owner: Owner) -> Iterator[None]:
    """Renew all claims of an owner from a thread for as long as this lasts, and give back what is left at the end.

    A renewal that fails is tried again at the next turn: at worst a lease ends and another measures the same.
    """
    over = threading.Event()

    def renew() -> None:
        while not over.wait(LEASE_S / 4):
            with contextlib.suppress(StoreError), store.writing() as connection:
                connection.execute(_of(owner).values(expires_at=time.time() + LEASE_S))

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(StoreError), store.writing() as connection:
            connection.execute(delete(CLAIMS).where(CLAIMS.c.owner == owner.name))


def _of(owner: Owner) -> Update:
    return update(CLAIMS).where(CLAIMS.c.owner == owner.name)
