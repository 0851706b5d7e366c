"""Every command that README and documentation show is one that works."""

import sys
from pathlib import Path

import click
import pytest

from jaxscale.cli import cli, main

from .blocks import ROOT, Command, commands, files

COMMANDS = commands()
FAST = [command for command in COMMANDS if not command.slow and not command.interactive]
SLOW = [command for command in COMMANDS if command.slow]


@pytest.fixture(scope="module")
def shown_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages show; commands of one page may build on each other's output."""
    folder = tmp_path_factory.mktemp("docs")
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "tpu_configs").symlink_to(ROOT / "tpu_configs")
    return folder


def _run(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["jaxscale", *command.arguments])
    try:
        main()
    except SystemExit as left:
        return left.code
    return 0


@pytest.mark.parametrize("command", FAST, ids=str)
def test_it_runs(
    command: Command, shown_files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    code = _run(command, shown_files, monkeypatch)
    said = capsys.readouterr()
    assert not code, said.err
    assert (said.out + said.err).strip()


@pytest.mark.slow
@pytest.mark.parametrize("command", SLOW, ids=str)
def test_it_runs_in_minutes(
    command: Command, shown_files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    code = _run(command, shown_files, monkeypatch)
    assert not code, capsys.readouterr().err


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in FAST], ids=str)
def test_its_options_exist(command: Command) -> None:
    verb, *arguments = command.arguments
    context = click.Context(cli, info_name="jaxscale")
    found = cli.get_command(context, verb)
    assert found is not None
    found.make_context(verb, list(arguments), parent=context)


def test_make_targets_exist() -> None:
    targets = {line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if ":" in line}
    said = {word for word in ("demo", "test", "check", "docs") if f"make {word}" in (ROOT / "README.md").read_text()}
    assert {"demo", "test"} <= said <= targets
