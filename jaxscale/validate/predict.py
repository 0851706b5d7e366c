"""Predict every run of a table in one vectorised call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxscale.calibrate import Calibration, Run, calibration_for
from jaxscale.calibrate.table import Block, blocks, estimates
from jaxscale.cost import metrics

NORMAL_80 = 1.2816  # half-width of a central 80% interval in standard deviations


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What is predicted of every run, arrays [n]; `lower_s` and `upper_s` bound an 80% interval."""

    step_time_s: np.ndarray
    lower_s: np.ndarray
    upper_s: np.ndarray
    mfu: np.ndarray  # by the definition that the run's source states
    peak_memory_bytes: np.ndarray
    fits: np.ndarray  # bool
    time_parts_s: dict[str, np.ndarray] = field(default_factory=dict)
    calibrations: tuple[str, ...] = ()  # where each run's constants come from


def predict(runs: Sequence[Run], choose: Callable[[Run], Calibration] | None = None) -> Predictions:
    """Predict time, MFU and memory; `choose` says which constants a run is on (those shipped with the package)."""
    chosen = {(run.software.stack, run.chip): run for run in runs}
    table = {key: choose(run) if choose else calibration_for(*key) for key, run in chosen.items()}
    calibrations = [table[run.software.stack, run.chip] for run in runs]
    stacks = {
        (run.software, run.chip): calibration.stack_for(run.software)
        for run, calibration in zip(runs, calibrations, strict=True)
    }
    columns = {name: np.zeros(len(runs)) for name in ("time", "memory", "limit", "mfu")}
    parts: dict[str, np.ndarray] = {}
    for block in blocks(runs, lambda run: stacks[run.software, run.chip]):
        batch = estimates(block)
        here = block.rows
        columns["time"][here] = batch.step_time_s
        columns["memory"][here] = batch.memory_bytes
        columns["limit"][here] = block.problem.device.usable_hbm_bytes
        columns["mfu"][here] = _mfu(block, [runs[row] for row in here], batch.step_time_s)
        for part, seconds in batch.times.parts_s.items():
            parts.setdefault(part, np.zeros(len(runs)))[here] = seconds
    sigmas = [
        c.sigma_at(num_chips=run.cluster.num_chips, seq_len=run.workload.seq_len, shape=run.shape)
        for c, run in zip(calibrations, runs, strict=True)
    ]
    spread = np.exp(NORMAL_80 * np.array(sigmas))
    return Predictions(
        step_time_s=columns["time"], lower_s=columns["time"] / spread, upper_s=columns["time"] * spread,
        mfu=columns["mfu"], peak_memory_bytes=columns["memory"], fits=columns["memory"] <= columns["limit"],
        time_parts_s=parts, calibrations=tuple(c.describe() for c in calibrations),
    )  # fmt: skip


def _mfu(block: Block, runs: Sequence[Run], step_time_s: np.ndarray) -> np.ndarray:
    """Utilisation by each source's own count of FLOPs, read from its note.

    Masked attention counted in full, the input embedding not counted and nothing recomputed, unless the note says so.
    """
    p = block.problem
    notes = [run.mfu_note.lower().replace("non-causal", "full") for run in runs]
    causal = np.array(["causal" in note for note in notes])
    embedding = np.array(["includes the input embedding" in note or "embedding counted" in note for note in notes])
    hardware = np.array(
        ["hardware" in note and run.layout.remat == "full" for note, run in zip(notes, runs, strict=True)]
    )
    flops = np.where(
        causal, metrics.model_flops_per_token(p, causal=True), metrics.model_flops_per_token(p, causal=False)
    )
    flops = flops + embedding * 6.0 * p.inventory.embedding_params * (
        0.0 if p.inventory.numbers.structure.tied else 1.0
    )
    flops = flops * np.where(hardware, 4.0 / 3.0, 1.0)
    return metrics.mfu(p, flops * p.tokens_per_step, step_time_s)
