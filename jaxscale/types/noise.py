"""The gradient noise scale: how large a batch may grow before more of it stops helping.

B_simple = tr(Sigma) / |G|^2, with Sigma the covariance of one sequence's gradient and G the true gradient. Both are
estimated without bias from the squared norms of gradients over a small and a big batch (McCandlish et al. 2018,
"An Empirical Model of Large-Batch Training", arXiv 1812.06162, appendix A.1). The ratio of two noisy estimates is
biased, so numerator and denominator are averaged over steps apart, and divided last.
"""

from dataclasses import dataclass

from jaxscale.errors import SpecError

DECAY = 0.95  # of the averages, a step


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScale:
    """Running averages of tr(Sigma) and |G|^2; batches in sequences."""

    small_batch: float
    big_batch: float
    trace: float = 0.0  # decayed sum of the estimates of tr(Sigma)
    square: float = 0.0  # the same of |G|^2
    weight: float = 0.0  # the same of ones
    num_steps: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.small_batch < self.big_batch:
            raise SpecError(
                f"noise scale: small_batch={self.small_batch} must be positive and below big_batch={self.big_batch}"
            )

    def after(self, small_square: float, big_square: float) -> "NoiseScale":
        """The averages with one more step: mean squared norm over its small batches, squared norm over the big one."""
        small, big = self.small_batch, self.big_batch
        trace = (small_square - big_square) / (1.0 / small - 1.0 / big)
        square = (big * big_square - small * small_square) / (big - small)
        return NoiseScale(
            small_batch=small, big_batch=big, trace=DECAY * self.trace + trace, square=DECAY * self.square + square,
            weight=DECAY * self.weight + 1.0, num_steps=self.num_steps + 1,
        )  # fmt: skip

    @property
    def mean_trace(self) -> float:
        """Average estimate of tr(Sigma) of one sequence's gradient."""
        return self.trace / self.weight if self.weight else 0.0

    @property
    def mean_square(self) -> float:
        """Average estimate of |G|^2; negative where the noise drowns it."""
        return self.square / self.weight if self.weight else 0.0

    @property
    def sequences(self) -> float | None:
        """B_simple in sequences; None before the first step, and while the gradient drowns in noise."""
        return self.mean_trace / self.mean_square if self.mean_square > 0 else None
