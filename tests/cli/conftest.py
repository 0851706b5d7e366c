"""The command line as a user meets it: arguments in, exit code, stdout and stderr out."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from jaxscale.cli import main


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def jaxscale(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Run one command line in this process."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["jaxscale", *arguments])
        code = 0
        try:
            main()
        except SystemExit as left:
            code = left.code or 0
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run
