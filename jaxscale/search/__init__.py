"""Every valid layout, ranked: space, limits, selection, and why the rest was rejected."""

from jaxscale.search.limits import NO_LIMITS, Limits, parse_limits
from jaxscale.search.search import OBJECTIVES, search
from jaxscale.types.search import SearchResult

__all__ = ["NO_LIMITS", "OBJECTIVES", "Limits", "SearchResult", "parse_limits", "search"]
