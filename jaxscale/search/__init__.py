"""Every valid layout, ranked: space, limits, selection, and why the rest was rejected."""

from jaxscale.search.limits import NO_LIMITS, Limits, parse_limits
from jaxscale.search.neighbours import nearest_legal, single_changes
from jaxscale.search.remedies import remedies
from jaxscale.search.search import DEFAULT_HEADROOM, OBJECTIVES, search
from jaxscale.types.search import Change, SearchResult

__all__ = [
    "DEFAULT_HEADROOM",
    "NO_LIMITS",
    "OBJECTIVES",
    "Change",
    "Limits",
    "SearchResult",
    "nearest_legal",
    "parse_limits",
    "remedies",
    "search",
    "single_changes",
]
