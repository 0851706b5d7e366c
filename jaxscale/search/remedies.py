"""What would make a search feasible that found nothing: computed, by searching again with one thing changed."""

from collections.abc import Callable

from jaxscale.errors import JaxscaleError
from jaxscale.search.limits import Limits, parse_limits
from jaxscale.search.search import search
from jaxscale.types import Cluster, Stack
from jaxscale.types.search import Change, SearchResult

MOST_DOUBLINGS = 6  # of the number of chips
LIGHTEST = "microbatch_size=1,remat=full|offload_inputs,schedule=gpipe|1f1b"


def remedies(
    result: SearchResult,
    limits: Limits,
    resized: Callable[[int], Cluster],
    *,
    stack: Stack | None = None,
) -> tuple[Change, ...]:
    """Changes that make `result`, which found nothing, feasible: more chips, lifted limits, less headroom.

    `resized(num_chips)` gives the same kind of cluster in another size, and raises JaxscaleError where there is none.
    """
    found = [_more_chips(result, limits, resized, stack), *_lifted(result, limits, stack)]
    if result.headroom:
        found.append(_first("no headroom", result, limits, result.cluster, stack, headroom=0.0))
    return tuple(remedy for remedy in found if remedy is not None)


def _more_chips(
    result: SearchResult, limits: Limits, resized: Callable[[int], Cluster], stack: Stack | None
) -> Change | None:
    for doublings in range(1, MOST_DOUBLINGS + 1):
        num_chips = result.cluster.num_chips * 2**doublings
        try:
            cluster = resized(num_chips)
        except JaxscaleError:
            continue
        remedy = _first(f"{num_chips} chips ({cluster.name})", result, limits, cluster, stack, headroom=result.headroom)
        if remedy is not None:
            return remedy
    return None


def _lifted(result: SearchResult, limits: Limits, stack: Stack | None) -> list[Change | None]:
    """Each limit lifted on its own."""
    return [
        _first(f"no limit on {name}", result, limits.without(name), result.cluster, stack, headroom=result.headroom)
        for name in limits.fields
    ]


def _first(
    what: str, result: SearchResult, limits: Limits, cluster: Cluster, stack: Stack | None, *, headroom: float
) -> Change | None:
    """The best layout after a change, if any fits. The lightest layouts, which are few, tell whether one does."""
    for narrowed in (limits.narrowed(parse_limits(LIGHTEST)), limits):
        again = search(
            result.shape, result.workload, cluster, stack=stack, limits=narrowed, objective=result.objective, top=1,
            headroom=headroom,
        )  # fmt: skip
        if not again.ranked:
            return None
    return Change(what=what, kind="remedy", estimate=again.ranked[0])
