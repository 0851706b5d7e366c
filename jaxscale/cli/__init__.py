"""The command line: one small function per verb, loaded only when it is called."""

import contextlib
import importlib
import io
import sys
from itertools import pairwise

import click
from click.shell_completion import CompletionItem

from jaxscale import __version__
from jaxscale.errors import JaxscaleError

# verb -> (module with a click command named `command`, one-line help shown by `jaxscale --help`)
VERBS: dict[str, tuple[str, str]] = {
    "search": ("jaxscale.cli.search", "Find the best layouts for a model on a cluster, and check them."),
    "predict": ("jaxscale.cli.predict", "Predict time, memory, MFU and money of one layout."),
    "fit": ("jaxscale.cli.fit", "Fit remat policy and microbatch to a layout's memory."),
    "explain": ("jaxscale.cli.explain", "Tell why a layout takes the time and memory it does."),
    "trace": ("jaxscale.cli.trace", "Write a predicted step as a trace for ui.perfetto.dev."),
    "explore": ("jaxscale.cli.explore", "Change a layout by hand; time and memory follow."),
    "export": ("jaxscale.cli.export", "Write a layout as another framework's configuration."),
    "import": ("jaxscale.cli.import_config", "Read another framework's configuration as a run spec."),
    "plan": ("jaxscale.cli.plan", "From a budget to a model, tokens, layout, days and money."),
    "laws": ("jaxscale.cli.laws", "List the scaling laws, or ask them about a model."),
    "fit-law": ("jaxscale.cli.fit_law", "Fit a scaling law to a table of runs."),
    "models": ("jaxscale.cli.models", "List model presets, or show one."),
    "clusters": ("jaxscale.cli.clusters", "List chips and clusters, or show one."),
    "validate": ("jaxscale.cli.validate", "Compare predictions with a table of measured runs."),
    "calibrate": ("jaxscale.cli.calibrate", "Fit a software stack's constants to measured runs."),
    "compile": ("jaxscale.cli.compile", "Compile the real step ahead of time for a described cluster."),
    "check": ("jaxscale.cli.check", "Compare predictions with the compiler over a grid of layouts."),
    "cache": ("jaxscale.cli.cache", "Look at the kept compile results, or clear them."),
    "twin": ("jaxscale.cli.twin", "Run a layout's small twin on emulated devices against one device."),
    "measure": ("jaxscale.cli.measure", "Run a layout's real step on devices that are there, or emulated."),
    "sweep": ("jaxscale.cli.sweep", "Measure many models, workloads and layouts; resumes."),
    "tune": ("jaxscale.cli.tune", "Find the fastest layout on the devices at hand by measuring few."),
    "train": ("jaxscale.cli.train", "Train under a layout on this machine, in one process or several."),
    "launch": ("jaxscale.cli.launch", "Write files that start a command on a TPU slice or a GPU cluster."),
    "probe": ("jaxscale.cli.probe", "Measure this machine's devices and write them as a cluster file."),
    "runs": ("jaxscale.cli.runs", "List, compare, export and check stored measurements."),
    "bench": ("jaxscale.cli.bench", "Measure how fast jaxscale itself is."),
}
# the first verb of each part of `jaxscale --help` -> its heading
SECTIONS = {
    "search": "Predict a layout",
    "plan": "Plan a budget",
    "models": "Look up",
    "validate": "Compare with measurements",
    "compile": "Compile, without the hardware",
    "twin": "Run and measure",
    "bench": "jaxscale itself",
}
INTERRUPTED = 130  # as shells say it of a program that Ctrl-C ended


class _LazyGroup(click.Group):
    """Lists every verb without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return _with_quiet(importlib.import_module(VERBS[cmd_name][0]).command)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            from jaxscale.errors import nearest

            ctx.fail(f"No such command {args[0]!r}.{nearest(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        verbs = [CompletionItem(verb, help=said) for verb, (_, said) in VERBS.items() if verb.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        starts = [*SECTIONS, None]
        verbs = list(VERBS)
        for first, following in pairwise(starts):
            end = verbs.index(following) if following else len(verbs)
            with formatter.section(SECTIONS[first]):
                formatter.write_dl([(verb, VERBS[verb][1]) for verb in verbs[verbs.index(first) : end]])


def _with_quiet(command: click.Command) -> click.Command:
    """Give a verb, and what is below it, `--quiet` where it has none: errors are all that it says on stderr."""
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _with_quiet(below)
    if not isinstance(command, click.Group) and all(parameter.name != "quiet" for parameter in command.params):
        command.params.append(
            click.Option(
                ["--quiet"], is_flag=True, expose_value=False, callback=_silence, help="Nothing on stderr but errors."
            )
        )
    return command


def _silence(ctx: click.Context, _: click.Parameter, quiet: bool) -> None:
    """Throw stderr away until the verb is over; errors are printed after that."""
    if quiet:
        ctx.with_resource(contextlib.redirect_stderr(io.StringIO()))


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="jaxscale")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """How a distributed training run will perform, before you pay for it.

    \b
    Start here:
      jaxscale search llama3-8b --cluster v5p-64 \\
          --seq-len 8192 --global-batch-size 128     the best layouts
      jaxscale models                                what can be trained
      jaxscale clusters                              on what
      jaxscale search --help                         all options of a verb
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run the command line.

    Every error a user can cause is one sentence on stderr and exit code 2 or 3; Ctrl-C is 130, and a reader that has
    seen enough (`| head`) is no error.
    """
    try:
        code = cli.main(prog_name="jaxscale", standalone_mode=False)
    except JaxscaleError as error:
        click.echo(f"jaxscale: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(INTERRUPTED)
    if isinstance(code, int):  # how click leaves after --help, --version and the like
        sys.exit(code)
