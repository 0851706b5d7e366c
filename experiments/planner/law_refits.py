"""Cases that are refits: constants found again from public runs, given the description and the data folder."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxscale.plan.fit import FORMS, LEAST_SQUARES, fit, objective_of, read_runs
from jaxscale.plan.fit.curves import grid_loss_gap, power_law
from jaxscale.plan.laws import batch, dense, hyper

EPOCH = "epoch_chinchilla/svg_extracted_data.csv"
OUTLIERS = 5  # the points of highest loss, D/N < 0.41, that the replication drops


def _epoch_runs(folder: Path, drop: int) -> dict[str, np.ndarray]:
    return read_runs(folder / EPOCH, drop_highest=drop)


def epoch_refit(text: str, folder: Path) -> list[float]:
    if "all 245" in text:
        constants = fit(FORMS["chinchilla"], _epoch_runs(folder, 0)).constants
        return [constants[name] for name in ("alpha", "beta", "E")]
    constants = fit(FORMS["chinchilla"], _epoch_runs(folder, OUTLIERS)).constants
    return [constants[name] for name in ("E", "A", "B", "alpha", "beta")]


def epoch_objectives(text: str, folder: Path) -> list[float]:
    runs = _epoch_runs(folder, OUTLIERS)
    laws = (dense.HOFFMANN_A3, dense.HOFFMANN_A3_ROUNDED)
    return [
        objective_of(FORMS["chinchilla"], {k: getattr(law, k) for k in ("E", "A", "B", "alpha", "beta")}, runs)
        for law in laws
    ]


# Words of the description -> the suite's settings.
_PORIAN = {
    "attention": {"hparams": "tuned", "warmup": "short", "decay": "const", "param_count": "attention"},
    "kaplan reproduction": {"hparams": "base", "warmup": "long", "decay": "kaplan", "param_count": "kaplan"},
    "last layer": {"hparams": "base", "warmup": "long", "decay": "kaplan", "param_count": "standard"},
    "short warmup": {"hparams": "base", "warmup": "short", "decay": "kaplan", "param_count": "standard"},
    "cosine": {"hparams": "base", "warmup": "short", "decay": "chinchilla", "param_count": "standard"},
    "tuned": {"hparams": "tuned", "warmup": "short", "decay": "const", "param_count": "standard"},
}


def porian_exponent(text: str, folder: Path) -> list[float]:
    """Weighted least squares over the optima of one setting."""
    settings = next(value for words, value in _PORIAN.items() if words in text)
    where = settings | {"dataset": "rw" if "RefinedWeb" in text else "owt2"}
    path = folder / "porian/optimal_pairs.csv"
    table = read_runs(path, columns={"params": "n_star", "learning_rate": "n_star_std", "flops": "flops"}, where=where)
    line = power_law(("flops",), (table["flops"],), table["params"], relative_std=table["learning_rate"], draws=2)
    return [line.exponents[0]]


def _gadre_runs(text: str, folder: Path) -> dict[str, np.ndarray]:
    dataset = "rpj" if "RedPajama" in text else "rw_original" if "RefinedWeb" in text else "c4_original"
    where = {"dataset": dataset, "val_dataset": "['training/eval_data/c4_val/shard-{0000000..0000010}.tar']"}
    path = folder / "gadre/gadre_models.csv"
    columns = {"params": "params", "tokens": "tokens", "loss": "loss", "budget": "chinchilla_multiplier"}
    return read_runs(path, columns=columns, where=where)


def gadre_fit(text: str, folder: Path) -> list[float]:
    """The paper's five points: four sizes at 20 tokens a parameter and the 11M model at 320."""
    runs = _gadre_runs(text, folder)
    params, multiplier = runs["params"], runs["budget"]
    smallest = params == params.min()
    chosen = ((multiplier == 1.0) & (params < 1e9)) | (smallest & (multiplier == 16.0))
    result = fit(FORMS["gadre"], {name: runs[name][chosen] for name in ("params", "tokens", "loss")}, how=LEAST_SQUARES)
    if "rel. error" in text:
        targets = [(1.4e9, 32.0), (6.9e9, 1.0)]
        rows = [np.argmin(np.abs(np.log(params / n)) + np.abs(np.log(multiplier / m))) for n, m in targets]
        predicted = result.predict(params[rows], runs["tokens"][rows])
        return [100.0 * abs(value) for value in predicted / runs["loss"][rows] - 1.0]
    return [result.constants[name] for name in ("a", "b", "eta", "E")]


def _steps(folder: Path, size: str | None = None) -> list[tuple[float, float]]:
    """Sizes in millions with their critical batch, refitted from steps to a target loss."""
    path = folder / "critical_batch_size/steps_to_loss.csv"
    sizes = [size] if size else ["85", "151", "302", "604", "1200"]
    found = []
    for name in sizes:
        where = {"model_params_M": name}
        runs = read_runs(
            path, columns={"batch_tokens": "batch_size_seqs_512tok", "budget": "steps_to_target"}, where=where
        )
        found.append((float(name), batch.zhang_fit(runs["batch_tokens"], runs["budget"])[2]))
    return found


def zhang_size(text: str, folder: Path) -> list[float]:
    return [_steps(folder, re.match(r"(\d+)M", text).group(1))[0][1]]


def zhang_power(text: str, folder: Path) -> list[float]:
    sizes, critical = np.array(_steps(folder)).T
    line = power_law(("params",), (sizes,), critical, draws=2)
    return [line.coefficient, line.exponents[0]]


def step_law_bootstrap(text: str, folder: Path) -> list[float]:
    table = np.genfromtxt(folder / "steplaw/1004_fitted_lr_bs_scaling_model_parameters.csv", delimiter=",", names=True)
    mean = {name: float(np.mean(table[name])) for name in table.dtype.names}
    return [
        np.exp(mean["lr_intercept"]),
        mean["lr_coefN"],
        mean["lr_coefD"],
        np.exp(mean["bs_intercept"]),
        mean["bs_coefD"],
    ]


def step_law_gap(text: str, folder: Path) -> list[float]:
    columns = {"params": "N", "tokens": "D", "loss": "smooth loss", "learning_rate": "lr", "batch_tokens": "bs*2048"}
    runs = read_runs(folder / "steplaw/dense_lr_bs_loss.csv", columns=columns)
    rate = hyper.step_law_learning_rate(runs["params"], runs["tokens"])
    gaps = list(grid_loss_gap(runs, rate, hyper.step_law_batch_tokens(runs["tokens"])).values())
    return [float(np.mean(gaps)), max(gaps)]


REFITS: dict[tuple[str, str], Callable[[str, Path], list[float]]] = {
    ("besiroglu", "refit Epoch csv"): epoch_refit,
    ("besiroglu", "all 245"): epoch_refit,
    ("besiroglu", "objective of"): epoch_objectives,
    ("porian", "exponent a"): porian_exponent,
    ("gadre", ""): gadre_fit,
    ("zhang_cbs", "CBS in sequences"): zhang_size,
    ("zhang_cbs", "power law"): zhang_power,
    ("step_law", "bootstrap csv"): step_law_bootstrap,
    ("step_law", "mean rel. loss gap"): step_law_gap,
}
