"""Batch size against time: how many steps a larger batch saves, and where it stops saving.

Three definitions of "critical" lie apart by factors of two to four: twice the least number of steps (McCandlish,
Kaplan), 20% more steps than linear scaling from 256 sequences (Zhang), D_min / S_min (Power Lines). The batch of least
loss at fixed data is another thing again, and smaller.
"""

import numpy as np

from jaxscale.plan.law import Law, Number

ZHANG_SEQ_LEN = 512
POWER_LINES_SEQ_LEN = 2048


def steps_ratio(batch: Number, critical: Number) -> Number:
    """S / S_min = 1 + B_crit / B (McCandlish et al. 2018, arXiv 1812.06162, eq. 2.11)."""
    return 1.0 + critical / batch


def samples_ratio(batch: Number, critical: Number) -> Number:
    """E / E_min = 1 + B / B_crit: how much more data, and compute, the batch costs."""
    return 1.0 + batch / critical


def batch_for_samples(samples_over_least: Number, critical: Number) -> Number:
    """Batch at which training costs `samples_over_least` (above 1) times the least data."""
    return critical * (samples_over_least - 1.0)


def noise_scale(trace_covariance: Number, gradient_norm_squared: Number) -> Number:
    """B_simple = tr(Sigma) / |G|^2 in examples (eq. 2.9): a measure of the critical batch."""
    return trace_covariance / gradient_norm_squared


def noise_scale_of_two_batches(
    small_batch: Number, small_norm_squared: Number, big_batch: Number, big_norm_squared: Number
) -> tuple[Number, Number, Number]:
    """Unbiased |G|^2, tr(Sigma) and their ratio B_simple from gradient norms at two batch sizes (appendix A.1)."""
    gradient = (big_batch * big_norm_squared - small_batch * small_norm_squared) / (big_batch - small_batch)
    trace = (small_norm_squared - big_norm_squared) / (1.0 / small_batch - 1.0 / big_batch)
    return gradient, trace, trace / gradient


def sgd_rate_ratio(batch: Number, noise: Number) -> Number:
    """Best SGD learning rate over its largest: 1 / (1 + B_noise / B) (eq. 2.6)."""
    return 1.0 / (1.0 + noise / batch)


def adam_rate_ratio(batch: Number, noise: Number) -> Number:
    """Best Adam learning rate over its largest: 2 / (sqrt(B_n/B) + sqrt(B/B_n)) (Surge, arXiv 2405.14578, eq. 13).

    It peaks at B = B_noise and falls above; valid where B is small against pi sigma^2 / 2 mu^2.

    >>> float(round(adam_rate_ratio(0.25, 1.0), 3)), float(round(adam_rate_ratio(4.0, 1.0), 3))
    (0.8, 0.8)
    """
    return 2.0 / (np.sqrt(noise / batch) + np.sqrt(batch / noise))


def zhang_critical_sequences(tokens: Number) -> Number:
    """Zhang et al. 2024 (arXiv 2410.21676): 22.91 D^0.47 sequences of 512 tokens, D in millions of tokens."""
    return 22.91 * (tokens / 1e6) ** 0.47


def zhang_critical_sequences_by_size(params: Number) -> Number:
    """Zhang et al.: at Chinchilla tokens, 93.1968 N^0.46828 sequences of 512, N in millions."""
    return 93.1968 * (params / 1e6) ** 0.46828


def zhang_critical_tokens(tokens: Number) -> Number:
    """Zhang et al. in tokens."""
    return zhang_critical_sequences(tokens) * ZHANG_SEQ_LEN


def zhang_fit(batches: np.ndarray, steps: np.ndarray) -> tuple[float, float, float]:
    """Fit log S = log(a + b / B) by least squares; returns a, b and the critical batch 1.2 * 256 + b / 5a.

    The critical batch is where training takes 20% more steps than linear scaling from B = 256 would.
    """
    from scipy.optimize import least_squares

    x = 1.0 / np.asarray(batches, dtype=float)
    target = np.log(np.asarray(steps, dtype=float))
    slope, intercept = np.polyfit(x, np.exp(target), 1)
    start = np.log([max(intercept, 1.0), slope])
    fit = least_squares(
        lambda p: np.log(np.exp(p[0]) + np.exp(p[1]) * x) - target, start, xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    a, b = np.exp(fit.x)
    return float(a), float(b), float(1.2 * 256 + b / (5.0 * a))


def power_lines_batch_sequences(tokens: Number) -> Number:
    """Power Lines (Bergsma et al. 2025, arXiv 2505.13738): optimal batch 0.0306 D^0.383 sequences of 2048."""
    return 0.0306 * tokens**0.383


def power_lines_critical_sequences(least_tokens: Number) -> Number:
    """Power Lines: critical batch 0.0471 D_min^0.462 sequences of 2048."""
    return 0.0471 * least_tokens**0.462


def schaipp_batch_tokens(tokens: Number) -> Number:
    """Schaipp 2026: optimal batch 0.667 D^0.566 tokens; a batch 4 times off costs about 5% of compute."""
    return 0.667 * tokens**0.566


# Shuai et al. 2024: exponents of compute at fixed compute; prefactors were not found.
SHUAI_EXPONENTS = {"params": 0.464, "tokens": 0.536, "batch": 0.102, "steps": 0.434}


LAWS = (
    Law(
        name="zhang_critical_batch",
        title="Zhang et al. 2024, critical batch by data",
        source="arXiv 2410.21676 and its repository",
        mark="VR",
        params="none",
        flops="-",
        dataset="C4, constant rate with weight averaging",
        batch_unit="sequences of 512",
        fitted={"params": (8.5e7, 1.2e9), "tokens": (1.7e9, 2.4e10)},
        note="20% more steps than linear from 256 sequences",
        quantities={"critical_batch_tokens": lambda p: zhang_critical_tokens(p.tokens)},
    ),
    Law(
        name="power_lines",
        title="Power Lines 2025, batch",
        source="arXiv 2505.13738, coefficients from memory",
        mark="FM",
        params="none",
        flops="6ND",
        dataset="SlimPajama",
        batch_unit="sequences of 2048",
        fitted={"params": (1.11e8, 3.3e9)},
        quantities={
            "batch_tokens": lambda p: power_lines_batch_sequences(p.tokens) * POWER_LINES_SEQ_LEN,
            "critical_batch_tokens": lambda p: power_lines_critical_sequences(p.tokens) * POWER_LINES_SEQ_LEN,
        },
    ),
    Law(
        name="schaipp_batch",
        title="Schaipp 2026, batch",
        source="second-hand",
        mark="V2",
        params="none",
        flops="-",
        fitted={},
        quantities={"batch_tokens": lambda p: schaipp_batch_tokens(p.tokens)},
    ),
)
