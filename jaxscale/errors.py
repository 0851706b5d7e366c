"""Every error that jaxscale raises on purpose. The command line turns each into one sentence and an exit code."""

import difflib
from collections.abc import Iterable


class JaxscaleError(Exception):
    """Base of all errors a user can cause or meet; its text is the sentence shown to the user."""

    exit_code = 2


class SpecError(JaxscaleError):
    """A model shape, workload, cluster or run spec that cannot be what was meant."""


class LayoutError(JaxscaleError):
    """A layout that does not fit its model, workload or cluster."""


class CatalogError(JaxscaleError):
    """A name that the catalogue does not know, or a catalogue file that cannot be read."""


class InfeasibleError(JaxscaleError):
    """The question is well formed and its answer is "none": no layout fits."""

    exit_code = 3


class CompileError(JaxscaleError):
    """The ahead-of-time compiler cannot be had, died, or refused the program for a reason other than memory."""


class MeasurementError(JaxscaleError):
    """A measurement that did not produce a number."""


class StoreError(JaxscaleError):
    """A store of measurements that cannot be opened, written or believed."""


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return `" Did you mean a, b?"` for the known names closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name.lower(), list(known), n=count, cutoff=0.5)
    return f" Did you mean {', '.join(close)}?" if close else ""
