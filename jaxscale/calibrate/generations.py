"""What is known of each generation of chips before anything was measured on it, and how constants carry over.

A fraction of the vendor's peak is not the same on every chip: a chip under a power cap or with little bandwidth for its
peak reaches less of it. Where a stack was calibrated on one generation and a run is on another, its constants carry
over but for these two, which move by as much (in logits) as public microbenchmarks of the two chips differ.
"""

import dataclasses
import math
from dataclasses import dataclass

from jaxscale.calibrate.calibration import Calibration, Fitted, pooled, prior, shipped, shipped_names
from jaxscale.calibrate.constants import CONSTANTS
from jaxscale.calibrate.run import Software, chip_generation
from jaxscale.calibrate.spread import prior_sigma
from jaxscale.types import STACKS, Cluster, Stack, Workload

REFERENCE = "a100"
# Added in squares where constants come from another generation of chips: what carrying over missed between pairs of
# measured generations (v4 and v5e; A100 and H100; A100 and V100, whose runs drift by themselves, counted less).
OTHER_CHIP_SIGMA = {"tpu": 0.08, "gpu": 0.16, "cpu": 0.16}
OTHER_PROGRAM_SIGMA = 0.06  # the same where they come from another program on the same compiler


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A generation of chips: shares of peak that a large matmul and FlashAttention-2 (splash on a TPU) reach there."""

    kind: str
    year: int
    matmul: float
    attention: float
    source: str


GENERATIONS: dict[str, Generation] = {
    "v100": Generation(kind="gpu", year=2017, matmul=0.78, attention=0.45, source="cuBLAS fp16 90-105 of 125 TFLOP/s"),
    "a100": Generation(
        kind="gpu", year=2020, matmul=0.80, attention=0.62, source="cuBLAS 240-270 of 312 TFLOP/s; FA2 paper"
    ),
    "h100": Generation(
        kind="gpu",
        year=2022,
        matmul=0.70,
        attention=0.33,
        source="cuBLAS 650-750 of 989 TFLOP/s; FA3 paper: FA2 35% of peak",
    ),
    "h200": Generation(kind="gpu", year=2023, matmul=0.71, attention=0.34, source="as H100, with more bandwidth"),
    "b200": Generation(kind="gpu", year=2024, matmul=0.70, attention=0.25, source="cuBLAS 1500-1700 of 2250 TFLOP/s"),
    "gb200": Generation(kind="gpu", year=2024, matmul=0.68, attention=0.24, source="as B200, of a higher peak"),
    "mi250x": Generation(
        kind="gpu", year=2021, matmul=0.60, attention=0.30, source="rocBLAS 100-130 of 191.5 TFLOP/s a die"
    ),
    "mi300x": Generation(
        kind="gpu", year=2023, matmul=0.48, attention=0.30, source="hipBLASLt 550-680 of 1307 TFLOP/s"
    ),
    "rtx4090": Generation(
        kind="gpu", year=2022, matmul=0.85, attention=0.60, source="near its peak at float32 accumulation"
    ),
    "v2": Generation(kind="tpu", year=2017, matmul=0.75, attention=0.45, source="as later TPUs"),
    "v3": Generation(kind="tpu", year=2018, matmul=0.75, attention=0.45, source="as later TPUs"),
    "v4": Generation(kind="tpu", year=2020, matmul=0.77, attention=0.55, source="XLA's estimated cycles"),
    "v5e": Generation(kind="tpu", year=2023, matmul=0.90, attention=0.55, source="XLA's estimated cycles"),
    "v5p": Generation(kind="tpu", year=2023, matmul=0.77, attention=0.52, source="XLA's estimated cycles"),
    "v6e": Generation(
        kind="tpu", year=2024, matmul=0.75, attention=0.45, source="four times v5e's peak, twice its bandwidth"
    ),
    "tpu7x": Generation(kind="tpu", year=2025, matmul=0.75, attention=0.45, source="as v6e"),
    "cpu": Generation(kind="cpu", year=2020, matmul=0.50, attention=0.30, source="emulated"),
}


def calibration_for(stack: str, chip: str) -> Calibration:
    """Constants of a stack on a generation of chips: fitted there, else carried over from the nearest.

    Of a stack that was measured nowhere, those that all measured stacks share; on TPUs, priors.
    """
    exact = shipped(stack, chip)
    if exact:
        return exact
    measured_on = [generation for name, generation in shipped_names() if name == stack]
    if measured_on:
        nearest_chip = min(measured_on, key=lambda generation: _distance(generation, chip))
        return carry_over(shipped(stack, nearest_chip) or prior_on(stack, chip), chip)
    if chip in GENERATIONS and GENERATIONS[chip].kind != "gpu":
        return prior_on(stack, chip)
    return dataclasses.replace(moved(pooled(), REFERENCE, chip), stack=stack, chip=chip)


def own_stack(cluster: Cluster, workload: Workload) -> Stack:
    """The stack of jaxscale's own training step: as `jaxscale probe` found it on this very cluster, else XLA's, as
    fitted to other JAX programs on this or the nearest chip.
    """
    if cluster.stack is not None:
        return cluster.stack
    kind = cluster.chip.kind
    if kind == "cpu":
        return STACKS["xla_cpu"]
    name = f"xla_{kind}"
    calibration = calibration_for(name, chip_generation(cluster.chip.name))
    software = Software(
        stack=name, matmul=workload.precision.matmul, attention_kernel=STACKS[name].attention_kernel,
        fused_elementwise=True,
    )  # fmt: skip
    sigma = calibration.sigma_at(num_chips=cluster.num_chips, seq_len=workload.seq_len)
    return dataclasses.replace(calibration.stack_for(software), sigma_log=math.hypot(sigma, OTHER_PROGRAM_SIGMA))


def prior_on(stack: str, chip: str) -> Calibration:
    """What is believed of any stack on a generation of chips before it was measured."""
    return moved(prior(stack, chip), REFERENCE, chip)


def carry_over(found: Calibration, chip: str) -> Calibration:
    """A calibration of one generation as the best guess of another, with a wider spread."""
    kind = GENERATIONS[chip].kind if chip in GENERATIONS else "gpu"
    wider = {
        name: min(math.hypot(sigma, OTHER_CHIP_SIGMA[kind]), max(sigma, prior_sigma(found.stack)))
        for name in ("sigma_log", "sigma_log_experts")
        if (sigma := getattr(found, name)) is not None
    }
    provenance = dict(found.provenance) | {"note": f"carried over to {chip}"}
    return dataclasses.replace(moved(found, found.chip, chip), chip=chip, provenance=provenance, **wider)


def moved(found: Calibration, start: str, end: str) -> Calibration:
    """Shift the shares of peak by what the two generations differ in microbenchmarks."""
    old, new = GENERATIONS.get(start), GENERATIONS.get(end)
    if old is None or new is None or start == end:
        return found
    fitted = dict(found.fitted)
    for constant in CONSTANTS:
        kind = {"matmul_efficiency": "matmul", "attention_efficiency": "attention"}.get(constant.field)
        if kind is None or "fp8" in constant.name or constant.name == "attention_flash3":
            continue  # priors of fp8 and of FlashAttention-3 are of the chips that have them
        before = found.fitted.get(constant.name)
        spread = before.spread if before else constant.spread
        step = _logit(getattr(new, kind)) - _logit(getattr(old, kind))
        centre = constant.free(found.value(constant)) + step
        low, high = (constant.value(centre + side * 1.2816 * spread) for side in (-1.0, 1.0))
        fitted[constant.name] = Fitted(value=constant.value(centre), low=low, high=high, spread=spread)
    return dataclasses.replace(found, fitted=fitted)


def _logit(share: float) -> float:
    return math.log(share / (1.0 - share))


def _distance(one: str, other: str) -> float:
    first, second = GENERATIONS.get(one), GENERATIONS.get(other)
    if first is None or second is None:
        return 100.0
    return abs(first.year - second.year) + (50.0 if first.kind != second.kind else 0.0)
