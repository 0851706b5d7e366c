"""The store loses nothing that it reported as saved: many writers, kill -9, a full disk, damaged records."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from jaxscale.errors import StoreError
from jaxscale.study import Store, differences
from jaxscale.study import schema as schema_module
from jaxscale.study.record import Row, digest, to_row
from jaxscale.types.codec import encode
from tests.study.records import failed, measurement


@pytest.fixture
def store(tmp_path: Path):
    opened = Store(str(tmp_path / "runs.db"))
    yield opened
    opened.close()


def address(folder: Path) -> str:
    return str(folder / "runs.db")


def writer(folder: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.study.writer", address(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def damage(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(address(folder))
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_what_is_saved_comes_back_equal(store: Store) -> None:
    for made in (measurement("a1"), failed("f1"), measurement("n1", status="not_a_number", message="nan")):
        store.save(made)
        assert store.find(made.identifier) == made
    assert store.check() == []


def test_filters_and_order(store: Store) -> None:
    store.save(measurement("old", started_at="2025-01-01T00:00:00+00:00"))
    store.save(measurement("new", model="other"))
    store.save(failed("bad"))
    assert [row["identifier"] for row in store.rows()] == ["bad", "new", "old"]
    assert [row["identifier"] for row in store.rows(limit=1)] == ["bad"]
    assert [row["identifier"] for row in store.rows(model="other")] == ["new"]
    assert [m.identifier for m in store.measurements(status="out_of_memory")] == ["bad"]
    assert store.rows(cluster="cpu:64") == []


def test_a_run_is_found_by_the_beginning_of_its_name(store: Store) -> None:
    store.save(measurement("abc1"))
    store.save(measurement("abd2"))
    assert store.find("abc").identifier == "abc1"
    with pytest.raises(StoreError, match="several runs begin with 'ab'"):
        store.find("ab")
    with pytest.raises(StoreError, match=r"no run begins with 'abx1'.*Did you mean abc1"):
        store.find("abx1")
    with pytest.raises(StoreError, match="no run begins"):
        store.find("%")


def test_one_identifier_is_one_record(store: Store) -> None:
    store.save(measurement("a1"))
    store.save(measurement("a1"))
    assert len(store.rows()) == 1
    with pytest.raises(StoreError, match="another record has the identifier a1"):
        store.save(measurement("a1", mfu=0.5))


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    # None of them finds a schema when it starts.
    writers = [writer(tmp_path, name, "20") for name in "abc"]
    reported = {line for process in writers for line in process.communicate()[0].split()}
    assert len(reported) == 60
    opened = Store(address(tmp_path))
    assert {row["identifier"] for row in opened.rows()} == reported
    assert opened.check() == []


def test_a_killed_writer_loses_nothing_that_it_reported(tmp_path: Path) -> None:
    process = writer(tmp_path, "k", "100000")
    assert process.stdout is not None
    reported = {process.stdout.readline().strip() for _ in range(25)}
    process.kill()
    reported |= set(process.stdout.read().split("\n")[:-1])
    process.wait()
    opened = Store(address(tmp_path))
    assert reported <= {row["identifier"] for row in opened.rows()}
    assert opened.check() == []
    opened.save(measurement("after"))


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    said = writer(tmp_path, "d", "100000", "200000").communicate()[0].splitlines()
    assert said[-1].startswith("error: store ")
    opened = Store(address(tmp_path))
    assert {row["identifier"] for row in opened.rows()} == set(said[:-1])
    assert opened.check() == []


def test_a_changed_record_is_found(store: Store, tmp_path: Path) -> None:
    for name in ("good", "bad", "column"):
        store.save(measurement(name))
    damage(tmp_path, "UPDATE measurements SET record = replace(record, '0.2', '0.1') WHERE identifier = 'bad'")
    damage(tmp_path, "UPDATE measurements SET step_time_s = 0.001 WHERE identifier = 'column'")
    faults = {fault.identifier: fault.what for fault in store.check()}
    assert "SHA-256" in faults.pop("bad")
    assert faults == {"column": "step_time_s not as in the record"}
    with pytest.raises(StoreError, match="SHA-256"):
        store.find("bad")
    assert store.find("good").identifier == "good"


def test_a_newer_schema_is_refused(store: Store, tmp_path: Path) -> None:
    damage(tmp_path, "UPDATE jaxscale_schema SET version = 99")
    with pytest.raises(StoreError, match="version 99"):
        Store(address(tmp_path))


def test_an_older_schema_is_migrated_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(measurement("kept"))
    later = (*schema_module.MIGRATIONS, lambda c: c.execute(text("ALTER TABLE measurements ADD COLUMN note TEXT")))
    monkeypatch.setattr(schema_module, "MIGRATIONS", later)
    monkeypatch.setattr(schema_module, "VERSION", len(later))
    for _ in range(2):  # the second time there is nothing to do
        assert Store(address(tmp_path)).find("kept").identifier == "kept"


def version_1(folder: Path, *rows: Row) -> None:
    """A store as the first version made it."""
    engine = schema_module.open_engine(f"sqlite:///{address(folder)}")
    with engine.connect() as connection, connection.begin():
        schema_module.SCHEMA.create(connection)
        connection.execute(text("INSERT INTO jaxscale_schema VALUES (1)"))
        schema_module.MIGRATIONS[0](connection)
        for row in rows:
            old = {name: value for name, value in row.items() if name != "program"}
            names = ", ".join(old)
            connection.execute(text(f"INSERT INTO measurements ({names}) VALUES (:{names.replace(', ', ', :')})"), old)
    engine.dispose()


def test_a_store_of_the_first_version_learns_which_programs_it_has(tmp_path: Path) -> None:
    damaged = to_row(measurement("bad")) | {"record": "{}"}
    version_1(tmp_path, to_row(measurement("a1")), to_row(measurement("n1", surroundings=None)), damaged)
    opened = Store(address(tmp_path))
    assert {row["identifier"]: row["program"] for row in opened.rows()} == {
        "a1": to_row(measurement("a1"))["program"], "n1": "", "bad": None,
    }  # fmt: skip
    assert [fault.identifier for fault in opened.check()] == ["bad"]
    assert opened.rows(program=to_row(measurement("a1"))["program"])[0]["identifier"] == "a1"


def test_a_field_that_is_added_later_leaves_old_records_as_they_are(store: Store, tmp_path: Path) -> None:
    # `hfu` stands in for a field that the first version did not have.
    made = measurement("a1")
    record = json.dumps({name: value for name, value in encode(made).items() if name != "hfu"}, sort_keys=True)
    store.add_rows([to_row(made) | {"record": record, "sha256": digest(record)}])
    assert store.check() == []
    assert store.find("a1") == made


def test_a_migration_that_fails_changes_nothing(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(measurement("kept"))

    def broken(connection) -> None:
        connection.execute(text("ALTER TABLE measurements ADD COLUMN note TEXT"))
        connection.execute(text("ALTER TABLE no_such_table ADD COLUMN note TEXT"))

    with monkeypatch.context() as patched:
        patched.setattr(schema_module, "MIGRATIONS", (*schema_module.MIGRATIONS, broken))
        patched.setattr(schema_module, "VERSION", len(schema_module.MIGRATIONS))
        with pytest.raises(StoreError, match="no_such_table"):
            Store(address(tmp_path))
    assert "note" not in store.rows()[0]
    assert Store(address(tmp_path)).find("kept").identifier == "kept"


@pytest.mark.parametrize("where", ["/no/such/folder/runs.db", "nosuchdb://host/name"])
def test_a_store_that_cannot_be_opened(where: str) -> None:
    with pytest.raises(StoreError, match=f"store {where}"):
        Store(where)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_text("step,loss\n" * 200)
    with pytest.raises(StoreError, match="not a database"):
        Store(address(tmp_path))


def test_a_damaged_file_is_an_error_that_says_what_to_do(store: Store, tmp_path: Path) -> None:
    store.add_rows(to_row(measurement(f"a{number}")) for number in range(40))
    store.close()
    path = Path(address(tmp_path))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"malformed; `sqlite3 FILE \.recover"):
        Store(address(tmp_path)).rows()


def test_differences_name_the_fields() -> None:
    second = measurement("b2", model="other", num_devices=4)
    found = {d.field: (d.first, d.second) for d in differences(measurement("a1"), second)}
    assert found == {"request.shape.name": ("tiny", "other"), "num_devices": (2, 4)}
