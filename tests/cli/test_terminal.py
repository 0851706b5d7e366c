"""What every verb has in common on a terminal: --json, --quiet, width, colours, pipes, Ctrl-C, completion."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from jaxscale.cli import VERBS, cli

SMALL = ("gpt2-124m", "--cluster", "cpu:8", "--seq-len", "128", "--global-batch-size", "8")
LAYOUT = ("--layout", "fsdp=8")
QUICK = {
    "search": ("search", *SMALL),
    "predict": ("predict", *SMALL, *LAYOUT),
    "explain": ("explain", *SMALL, *LAYOUT),
    "export": ("export", *SMALL, *LAYOUT, "--to", "torchtitan"),
    "trace": ("trace", *SMALL, *LAYOUT),
    "models": ("models",),
    "models one": ("models", "mixtral-8x7b"),
    "clusters": ("clusters",),
    "clusters one": ("clusters", "2xv5p-256"),
    "clusters chip": ("clusters", "h100-sxm"),
    "laws": ("laws",),
}
BASH = "import sys; from jaxscale.cli import main; sys.argv[0] = 'jaxscale'; main()"


def leaves(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its words."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from leaves(below, f"{name} {below.name}")
    else:
        yield name, command


def all_leaves() -> list[tuple[str, click.Command]]:
    context = click.Context(cli)
    found = []
    for verb in VERBS:
        command = cli.get_command(context, verb)
        assert command is not None
        found += leaves(command, verb)
    return found


@pytest.mark.parametrize(("name", "command"), all_leaves(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_verb_has_json_quiet_and_a_help_of_eighty_columns(name: str, command: click.Command) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "--quiet"} <= options
    context = click.Context(
        command, info_name=f"jaxscale {name}", terminal_width=80, max_content_width=80,
        help_option_names=["-h", "--help"],
    )  # fmt: skip
    text = command.get_help(context)
    assert max(map(len, text.splitlines())) <= 80, text
    assert command.help, "a verb says what it does"


@pytest.mark.parametrize("name", QUICK)
def test_what_it_prints_fits_eighty_columns_and_is_plain_in_a_pipe(name: str, jaxscale) -> None:
    answer = jaxscale(*QUICK[name])
    assert answer.code == 0, answer.err
    if name not in ("trace", "export"):  # files, whose lines are as long as they are
        assert max(map(len, answer.out.splitlines())) <= 80
    assert "\x1b" not in answer.out + answer.err


@pytest.mark.parametrize("name", QUICK)
def test_json_is_all_of_stdout_and_quiet_all_of_stderr(name: str, jaxscale) -> None:
    answer = jaxscale(*QUICK[name], "--json", "--quiet")
    assert answer.code == 0
    json.loads(answer.out)
    assert answer.err == ""


def test_quiet_does_not_hide_errors(jaxscale) -> None:
    answer = jaxscale("export", *SMALL, "--layout", "fsdp=3", "--to", "jax", "--quiet")
    assert answer.code == 2
    assert "fsdp=3" in answer.err


def test_notes_are_on_stderr_unless_quiet(jaxscale) -> None:
    asked = QUICK["export"]
    assert "note: " in jaxscale(*asked).err
    assert jaxscale(*asked, "--quiet").err == ""


def _started(*arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", BASH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("verb", [("models",), ("models", "--json"), QUICK["trace"]], ids=["table", "json", "trace"])
def test_a_reader_that_has_seen_enough_is_no_error(verb: tuple[str, ...]) -> None:
    process = _started(*verb)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert said == ""


def test_ctrl_c_ends_with_130_and_without_a_traceback() -> None:
    code = (
        "import os, signal, jaxscale.cli.predict as verb\n"
        "verb.estimate = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        "import sys; from jaxscale.cli import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *QUICK["predict"]], capture_output=True, text=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_has_colours_unless_told_not_to(no_color: bool) -> None:
    """As in a terminal of 80 columns: rich colours, NO_COLOR (https://no-color.org) takes them away."""
    import pty

    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80"}
    environment |= {"NO_COLOR": "1"} if no_color else {}
    subprocess.run([sys.executable, "-c", BASH, *QUICK["predict"]], stdout=slave, check=True, env=environment)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a pseudo-terminal
        while chunk := os.read(master, 65536):
            shown += chunk
    os.close(master)
    assert (b"\x1b[36m" in shown) == (not no_color)
    assert b"step time" in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_what_click_writes(shell: str) -> None:
    done = _started(_JAXSCALE_COMPLETE=f"{shell}_source")
    out, err = done.communicate(timeout=60)
    assert err == ""
    assert "_JAXSCALE_COMPLETE" in out
    assert f"{shell}_complete" in out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("jaxscale ex", {"explain", "explore", "export"}),
        ("jaxscale predict mixtral", {"mixtral-8x7b", "mixtral-8x22b"}),
        ("jaxscale predict x --cluster v5p-6", {"v5p-64"}),
        ("jaxscale export x --to m", {"maxtext", "megatron"}),
        ("jaxscale search --head", {"--headroom"}),
        ("jaxscale bench se", {"search"}),
    ],
)
def test_completion_knows_verbs_models_clusters_and_options(typed: str, offered: set[str]) -> None:
    words = typed.split()
    done = _started(_JAXSCALE_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(len(words) - 1))
    out, err = done.communicate(timeout=60)
    assert err == ""
    assert {line.partition(",")[2] for line in out.splitlines()} == offered


def test_completing_a_verb_loads_none() -> None:
    code = (
        "import os, sys; from jaxscale.cli import cli\n"
        "from click.shell_completion import ShellComplete\n"
        "found = ShellComplete(cli, {}, 'jaxscale', 'X').get_completions([], 'pre')\n"
        "print([item.value for item in found], any(m.startswith('jaxscale.cost') for m in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['predict'] False"
