"""Fits that are not of a loss surface: isoFLOP minima, lines in log-log, best learning rate and batch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxscale.errors import MeasurementError

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLaw:
    """y = coefficient prod x_i^exponents_i, with a bootstrap [draws, 1 + exponents] of (ln coefficient, exponents)."""

    names: tuple[str, ...]
    coefficient: float
    exponents: tuple[float, ...]
    bootstrap: np.ndarray
    rms_log_error: float

    def interval(self, index: int, share: float = 0.95) -> tuple[float, float]:
        """Percentile interval of exponent `index`."""
        low, high = np.quantile(self.bootstrap[:, 1 + index], [(1.0 - share) / 2.0, (1.0 + share) / 2.0])
        return float(low), float(high)

    def __call__(self, *values: np.ndarray | float) -> np.ndarray:
        """Evaluate at one value for each name."""
        logs = sum(e * np.log(v) for e, v in zip(self.exponents, values, strict=True))
        return np.exp(np.log(self.coefficient) + logs)


def power_law(
    names: tuple[str, ...],
    inputs: tuple[np.ndarray, ...],
    output: np.ndarray,
    *,
    relative_std: np.ndarray | None = None,
    draws: int = 200,
    seed: int = 0,
) -> PowerLaw:
    """Weighted least squares in log-log; weights are 1 / relative_std^2 (Porian et al. 2024 weigh optima so)."""
    design = np.column_stack([np.ones(len(output)), *(np.log(column) for column in inputs)])
    if np.linalg.matrix_rank(design - design.mean(0)) < len(names):
        raise MeasurementError(
            f"power law in {', '.join(names)}: the runs do not vary enough to tell the exponents apart"
        )
    target = np.log(output)
    weight = np.ones(len(output)) if relative_std is None else 1.0 / relative_std
    solve = lambda w: np.linalg.lstsq(design * w[:, None], target * w, rcond=None)[0]  # noqa: E731
    best = solve(weight)
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(len(output), np.full(len(output), 1.0 / len(output)), size=draws)
    return PowerLaw(
        names=names,
        coefficient=float(np.exp(best[0])),
        exponents=tuple(float(value) for value in best[1:]),
        bootstrap=np.array([solve(weight * np.sqrt(row)) for row in counts]),
        rms_log_error=float(np.sqrt(np.mean((target - design @ best) ** 2))),
    )


def isoflop_minima(columns: Columns, *, decimals: int = 2) -> dict[str, np.ndarray]:
    """Bottom of a parabola in ln N for each budget (Hoffmann approach 2): flops, params, tokens, loss, each [budgets].

    Runs belong to one budget where log10 of 6ND agrees to `decimals`; or the column `budget` says so. Budgets with
    fewer than four runs, or whose parabola has no minimum among its runs, are left out.
    """
    params, loss = columns["params"], columns["loss"]
    flops = columns.get("budget", 6.0 * params * columns["tokens"])
    rows = []
    for level in np.unique(np.round(np.log10(flops), decimals)):
        here = np.round(np.log10(flops), decimals) == level
        if here.sum() < 4:
            continue
        x = np.log(params[here])
        square, slope, offset = np.polyfit(x, loss[here], 2)
        best = -slope / (2.0 * square) if square > 0 else np.nan
        if not x.min() <= best <= x.max():
            continue
        budget = float(np.exp(np.mean(np.log(flops[here]))))
        rows.append((budget, np.exp(best), budget / (6.0 * np.exp(best)), offset - slope**2 / (4.0 * square)))
    if len(rows) < 3:
        raise MeasurementError(
            f"isoFLOP minima: {len(rows)} budgets have a minimum inside their runs; at least 3 are needed"
        )
    return dict(zip(("flops", "params", "tokens", "loss"), np.array(rows).T, strict=True))


def near_best_runs(columns: Columns, *, threshold: float = 0.0025) -> np.ndarray:
    """Runs within `threshold` of the least loss of their (params, tokens) cell, as a mask (Step Law's selection)."""
    least = cell_minimum(columns)
    return columns["loss"] / least - 1.0 < threshold


def cell_minimum(columns: Columns) -> np.ndarray:
    """Least loss of the (params, tokens) cell that each run belongs to, [runs]."""
    cells = np.column_stack([columns["params"], columns["tokens"]])
    _, index = np.unique(cells, axis=0, return_inverse=True)
    index = index.ravel()
    least = np.full(index.max() + 1, np.inf)
    np.minimum.at(least, index, columns["loss"])
    return least[index]


def step_law(
    columns: Columns, *, threshold: float = 0.0025, draws: int = 200, seed: int = 0
) -> tuple[PowerLaw, PowerLaw]:
    """Learning rate over (N, D) and batch tokens over D of the near-best runs, as Step Law fits them."""
    near = near_best_runs(columns, threshold=threshold)
    params, tokens = columns["params"][near], columns["tokens"][near]
    options = {"draws": draws, "seed": seed}
    return (
        power_law(("params", "tokens"), (params, tokens), columns["learning_rate"][near], **options),
        power_law(("tokens",), (tokens,), columns["batch_tokens"][near], **options),
    )


def grid_loss_gap(
    columns: Columns, learning_rate: np.ndarray, batch_tokens: np.ndarray
) -> dict[tuple[float, float], float]:
    """Relative loss above the best of each (params, tokens) cell at the grid point nearest to a law's answer.

    `learning_rate` and `batch_tokens` are the law's answers for each run [runs]; nearest in the sum of squared logs.
    """
    distance = (
        np.log(columns["learning_rate"] / learning_rate) ** 2 + np.log(columns["batch_tokens"] / batch_tokens) ** 2
    )
    least = cell_minimum(columns)
    gaps = {}
    for params, tokens in sorted(set(zip(columns["params"].tolist(), columns["tokens"].tolist(), strict=True))):
        here = np.flatnonzero((columns["params"] == params) & (columns["tokens"] == tokens))
        nearest = here[np.argmin(distance[here])]
        gaps[params, tokens] = float(columns["loss"][nearest] / least[nearest] - 1.0)
    return gaps
