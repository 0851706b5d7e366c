"""How far a predicted step and a compiled one agree, field by field."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxscale.types import Estimate

# Parts of a prediction that are the step's arguments: what stays from step to step.
STATE_PARTS = ("parameters", "optimizer")
_NEGLIGIBLE_FRAC = 1e-3  # of all sent bytes: groups below this move scalars, norms and biases; a ratio says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Relative differences, predicted over compiled less one; NaN where one side has no figure."""

    memory: float  # the peak
    state: float  # parameters and optimizer state against arguments
    working: float  # everything else at the peak against temporaries
    flops: float
    communication: Mapping[str, float]  # by group of axes
    step_time: float
    verdict: bool  # both say that it fits, or both that it does not


def compare(
    predicted: Estimate, compiled: Estimate, *, program_flops: float | None = None, fitted: bool = True
) -> Agreement:
    """Compare two records of one layout.

    `program_flops` are those expected of the program, where it holds more than a device executes (a pipeline's). A
    program that was not `fitted` into memory is one the compiler gave up on after it had recomputed and moved what it
    could: its peak is what it lacks, its FLOPs and collectives are no step's.
    """
    state = sum(predicted.memory_parts_bytes.get(part, 0.0) for part in STATE_PARTS)
    arguments = compiled.memory_parts_bytes.get("arguments", math.nan)
    groups = sorted(set(predicted.comm_bytes) | set(compiled.comm_bytes))
    sent = {group: (predicted.comm_bytes.get(group, 0.0), compiled.comm_bytes.get(group, 0.0)) for group in groups}
    own = predicted.memory_bytes - predicted.memory_parts_bytes.get("reserved", 0.0)  # outside any program
    flops = predicted.hardware_flops if program_flops is None else program_flops
    negligible = _NEGLIGIBLE_FRAC * sum(compiled.comm_bytes.values())
    return Agreement(
        memory=difference(own, compiled.memory_bytes),
        state=difference(state, arguments),
        working=difference(own - state, compiled.memory_bytes - arguments),
        flops=difference(flops, compiled.hardware_flops) if fitted else math.nan,
        communication={group: difference(*both) for group, both in sent.items() if fitted and max(both) > negligible},
        step_time=difference(predicted.step_time_s, compiled.step_time_s),
        verdict=predicted.fits == compiled.fits,
    )


def difference(predicted: float, compiled: float) -> float:
    """Relative difference; infinite where only the prediction has something.

    >>> difference(103.0, 100.0), difference(0.0, 0.0), difference(1.0, 0.0)
    (0.030000000000000027, 0.0, inf)
    """
    if predicted == compiled:
        return 0.0
    return predicted / compiled - 1.0 if compiled else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Absolute differences of one field over a grid."""

    count: int
    median: float
    p95: float
    largest: float


def spread(differences: Sequence[float]) -> Spread | None:
    """Summarise differences; those that are not known are left out. None where none is known."""
    known = np.abs([d for d in differences if not math.isnan(d)])
    if not len(known):
        return None
    return Spread(
        count=len(known),
        median=float(np.quantile(known, 0.5, method="inverted_cdf")),
        p95=float(np.quantile(known, 0.95, method="inverted_cdf")),
        largest=float(known.max()),
    )


def summarise(agreements: Sequence[Agreement]) -> dict[str, Spread | None]:
    """The spread of every field over a grid; communication over all groups of axes."""
    fields = {name: [getattr(a, name) for a in agreements] for name in ("memory", "state", "working", "flops")}
    fields["communication"] = [d for a in agreements for d in a.communication.values()]
    fields["step_time"] = [a.step_time for a in agreements]
    return {name: spread(values) for name, values in fields.items()}
