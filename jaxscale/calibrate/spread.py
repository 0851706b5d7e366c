"""How far a prediction may be off, by where it lies among the runs that its constants were fitted to.

The spread of a stack is that of its errors on runs left out of the fit. It is stated apart for mixtures of experts
where both kinds were measured, and grows with every doubling beyond the measured range of chips, tokens a sequence, and
size of the layers.
"""

import math
from collections.abc import Iterable, Mapping

from jaxscale.calibrate.run import Run
from jaxscale.types import ModelShape

Ranges = Mapping[str, tuple[float, float]]

# Added in squares for each doubling outside the range. Of 154 left-out runs in four stacks that lie outside the range
# of the runs they were predicted from, the 80% interval of those inside holds 62%; with this it holds 80%.
OUTSIDE_SIGMA = 0.035
# Added in squares for mixtures of experts where none was measured, and the reverse: Megatron-Core on H100, the one
# stack with enough of both, misses experts by as much more than dense models.
OTHER_KIND_SIGMA = 0.15
PRIOR_SIGMAS = {"xla_tpu": 0.12}  # of a stack that nobody measured on any chip; XLA's programs for TPUs are much alike
PRIOR_SIGMA = 0.22


def prior_sigma(stack: str) -> float:
    """Standard deviation of log(measured / predicted) with priors only: what they missed of measured stacks."""
    return PRIOR_SIGMAS.get(stack, PRIOR_SIGMA)


def place(num_chips: float, seq_len: float, shape: ModelShape | None) -> dict[str, float]:
    """Where a run lies; `shape` None where it is not known yet."""
    found = {"num_chips": float(num_chips), "seq_len": float(seq_len)}
    return found if shape is None else found | {"layer_elements": float(shape.num_layers * shape.d_model**2)}


def place_of(run: Run) -> dict[str, float]:
    """Where a measured run lies."""
    return place(run.cluster.num_chips, run.workload.seq_len, run.shape)


def ranges_of(runs: Iterable[Run]) -> dict[str, tuple[float, float]]:
    """The smallest and largest value of every coordinate."""
    places = [place_of(run) for run in runs]
    return {name: (min(p[name] for p in places), max(p[name] for p in places)) for name in (places or [{}])[0]}


def joined(one: Ranges, other: Ranges) -> dict[str, tuple[float, float]]:
    """The range of both."""
    both = dict(one)
    for name, (low, high) in other.items():
        before = both.get(name, (low, high))
        both[name] = (min(before[0], low), max(before[1], high))
    return both


def doublings_outside(ranges: Ranges, at: Mapping[str, float]) -> float:
    """Doublings by which a place lies outside of ranges, summed over what is known of both.

    >>> doublings_outside({"num_chips": (8, 64)}, {"num_chips": 256, "seq_len": 8192})
    2.0
    """
    return sum(
        max(math.log2(low / at[name]), math.log2(at[name] / high), 0.0)
        for name, (low, high) in ranges.items()
        if name in at
    )


def widened(sigma_log: float, *, doublings: float, ceiling: float) -> float:
    """The spread that many doublings outside; at most `ceiling`, unless it is larger from the start."""
    return min(math.hypot(sigma_log, OUTSIDE_SIGMA * doublings), max(ceiling, sigma_log))
