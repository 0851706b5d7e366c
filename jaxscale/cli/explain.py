"""`jaxscale explain`: why a layout takes the time and memory it does, what would improve it, why another is worse."""

import click
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from jaxscale.calibrate import own_stack
from jaxscale.cli.common import Request, json_option, print_json, request_options
from jaxscale.cli.progress import Bars
from jaxscale.cost import estimate
from jaxscale.report import explain
from jaxscale.report.terminal import console, title
from jaxscale.report.words import layout_sentences, short_layout
from jaxscale.search import DEFAULT_HEADROOM, nearest_legal, parse_limits, search, single_changes
from jaxscale.types import Estimate, parse_layout
from jaxscale.types.legality import broken_rules


@click.command()
@request_options(layout=True)
@click.option("--against", metavar="L2", help="Another layout to compare with.  [default: the best that search finds]")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def command(request: Request, against: str | None, quiet: bool, as_json: bool) -> None:
    """Tell why a layout takes the time and memory it does.

    \b
    jaxscale explain llama3-8b --cluster v5p-64 --seq-len 8192 \\
        --global-batch-size 128 --layout "fsdp=8,tensor=4,remat=full"

    What bounds it, where time and memory go, the three best single changes and what each would gain, and why another
    layout is worse or better. An illegal layout is told why it cannot run and what is nearest.
    """
    layout = request.only_layout
    given = (request.shape, request.workload, request.cluster)
    stack = own_stack(request.cluster, request.workload)
    broken = broken_rules(request.shape, request.workload, layout, request.cluster.num_devices)
    if broken:
        sections = {"Why it cannot run": explain.illegal_sentences(broken, nearest_legal(*given, layout, stack))}
        _print(request, sections, {"legal": False, "reasons": broken}, as_json=as_json)
        return
    e = estimate(*given, layout, stack)
    changes = single_changes(*given, layout, stack)
    other = _other(request, against, quiet=quiet)
    better = explain.improvements(e, changes)
    sections = {
        "What it does": layout_sentences(layout, request.workload, request.cluster),
        "Time": explain.time_sentences(e, request.workload, request.cluster),
        "Memory": explain.memory_sentences(e),
        "Communication": (explain.communication_sentence(e),),
        "The best single changes" if e.fits else "Single changes after which it fits": explain.gain_sentences(
            e, changes
        ),
    }
    if other is not None and other.layout != layout:
        heading = "Against the other layout" if against else "Against the best that search finds"
        sections[heading] = explain.difference_sentences(e, other)
    elif other is not None:
        sections["Against the best"] = ("It is the best layout that search finds.",)
    else:
        sections["Against the best"] = (f"Search finds no layout that fits {request.cluster.name}.",)
    record = {
        "legal": True,
        "estimate": e.to_json(),
        "improvements": [{"change": c.what, "estimate": c.estimate.to_json()} for c in better],
        "against": other.to_json() if other else None,
    }
    _print(request, sections, record, as_json=as_json)


def _other(request: Request, against: str | None, *, quiet: bool) -> Estimate | None:
    """The layout to compare with: the one that was named, or the best of a search."""
    stack = own_stack(request.cluster, request.workload)
    if against is not None:
        return estimate(request.shape, request.workload, request.cluster, parse_layout(against), stack)
    with Bars(quiet=quiet) as bars:
        result = search(
            request.shape, request.workload, request.cluster, stack=stack,
            limits=parse_limits(*request.search.limits), top=1, headroom=request.search.headroom or DEFAULT_HEADROOM,
            progress=bars.searching(request.cluster.name),
        )  # fmt: skip
    return result.ranked[0] if result.ranked else None


def _print(request: Request, sections: dict[str, tuple[str, ...]], record: dict, *, as_json: bool) -> None:
    if as_json:
        print_json({"model": request.shape.name, "cluster": request.cluster.name} | record | {"explanation": sections})
        return
    out: Console = console()
    out.print(title(request.shape, request.workload, request.cluster))
    out.print(Text(f"\n{short_layout(request.only_layout)}", style="bold cyan"))
    for heading, sentences in sections.items():
        out.print(Text(f"\n{heading}", style="bold"))
        for sentence in sentences:
            out.print(Padding(Text(sentence), (0, 0, 0, 2)))
