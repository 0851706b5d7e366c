"""The store and its claims on a database server. JAXSCALE_TEST_POSTGRES is the URL of an empty one to use."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine

from jaxscale.study import Store
from jaxscale.study.claims import Owner, claim
from jaxscale.study.schema import METADATA
from tests.study.records import failed, measurement

URL = os.environ.get("JAXSCALE_TEST_POSTGRES", "")
pytestmark = pytest.mark.skipif(not URL, reason="JAXSCALE_TEST_POSTGRES names no database")


@pytest.fixture
def empty() -> Iterator[None]:
    engine = create_engine(URL)
    METADATA.drop_all(engine)
    yield
    METADATA.drop_all(engine)
    engine.dispose()


@pytest.mark.usefixtures("empty")
def test_records_come_back_equal() -> None:
    store = Store(URL)
    for made in (measurement("a1"), failed("f1")):
        store.save(made)
        assert store.find(made.identifier) == made
    assert store.check() == []


@pytest.mark.usefixtures("empty")
def test_many_writers_and_none_finds_a_schema() -> None:
    command = [sys.executable, "-m", "tests.study.writer", URL]
    writers = [subprocess.Popen([*command, name, "20"], stdout=subprocess.PIPE, text=True) for name in "abc"]
    reported = {line for process in writers for line in process.communicate()[0].split()}
    store = Store(URL)
    assert len(reported) == 60
    assert {row["identifier"] for row in store.rows()} == reported
    assert store.check() == []


@pytest.mark.usefixtures("empty")
def test_two_sweeps_share_the_work() -> None:
    models = [f"slow-{number}" for number in range(8)]
    command = [sys.executable, "-m", "tests.study.sweeper", URL, "2", *models]
    sweeps = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    saved = [line for process in sweeps for line in process.communicate()[0].splitlines() if line.startswith("saved")]
    store = Store(URL)
    assert len(saved) == len(store.rows()) == len({row["program"] for row in store.rows()}) == len(models)


@pytest.mark.usefixtures("empty")
def test_one_of_many_gets_a_claim() -> None:
    Store(URL)
    code = (
        "import sys; from jaxscale.study import Store; from jaxscale.study.claims import Owner, claim\n"
        "s = Store(sys.argv[1]); print([claim(s, f'p{i}', Owner()) for i in range(20)].count('yours'))"
    )
    askers = [subprocess.Popen([sys.executable, "-c", code, URL], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    granted = [int(process.communicate()[0]) for process in askers]
    assert sum(granted) >= 20  # a claim of a process that has ended is free again
    assert claim(Store(URL), "new", Owner()) == "yours"
