"""The fit of small steps gives back the times that it was made with; priors hold what the steps do not say."""

import dataclasses

import numpy as np
import pytest

from jaxscale.calibrate.own_steps import EMULATED, fit_own_steps, predicted_s
from jaxscale.catalog import load_cluster
from jaxscale.cost import estimate
from jaxscale.measure.probe_steps import probe_steps
from jaxscale.types import PRECISIONS, default_stack

CLUSTER = load_cluster("cpu:8")
BASE = default_stack("cpu")


def made_by(factor: float):
    """Steps as they would be measured where every constant is `factor` times its prior."""
    of_stack = {c.field: factor * c.centre for c in EMULATED if c.of == "stack"}
    [tier] = CLUSTER.tiers
    of_network = {c.field: c.centre * getattr(tier, c.field) for c in EMULATED if c.of == "network"}
    truth = dataclasses.replace(
        CLUSTER, stack=dataclasses.replace(BASE, **of_stack), tiers=(dataclasses.replace(tier, **of_network),)
    )
    steps = probe_steps(8, PRECISIONS["fp32"])
    return truth, [
        dataclasses.replace(step, seconds=s) for step, s in zip(steps, predicted_s(truth, steps), strict=True)
    ]


@pytest.mark.parametrize("factor", [1.0, 1.8])
def test_steps_are_explained(factor: float) -> None:
    truth, steps = made_by(factor)
    fitted = fit_own_steps(BASE, CLUSTER, steps)
    assert fitted.stack is not None
    assert np.allclose(predicted_s(fitted, steps), [step.seconds for step in steps], rtol=0.03)
    assert fitted.stack.sigma_log == pytest.approx(0.03)  # never surer than two measurements agree
    assert fitted.stack.source.startswith(f"jaxscale probe: {len(steps)} small steps")
    if factor == 1.0:
        assert fitted.stack.kernel_gap_s == pytest.approx(truth.stack.kernel_gap_s, rel=0.02)


def test_without_steps_of_experts_or_rings_the_rest_is_found() -> None:
    _, steps = made_by(1.5)
    some = [step for step in steps if step.shape.moe is None and step.layout.context == 1]
    fitted = fit_own_steps(BASE, CLUSTER, some)
    others = [step for step in steps if step not in some]
    assert np.allclose(predicted_s(fitted, others), [step.seconds for step in others], rtol=0.15)


def test_predictions_use_the_cluster_s_own_stack() -> None:
    _, steps = made_by(1.0)
    fitted = fit_own_steps(BASE, CLUSTER, steps)
    step = steps[0]
    found = estimate(step.shape, step.workload, fitted, step.layout)
    assert found.step_time_s == pytest.approx(step.seconds, rel=0.03)
    assert "small steps" in found.provenance["stack_source"]


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_every_number_of_devices_has_steps(num_devices: int) -> None:
    steps = probe_steps(num_devices, PRECISIONS["bf16"])
    axes = {axis for step in steps for axis in ("data", "fsdp", "tensor", "context", "pipeline", "expert")
            if getattr(step.layout, axis) > 1}  # fmt: skip
    assert axes == {"data", "fsdp", "tensor", "context", "pipeline", "expert"}
    assert len(steps) > len(EMULATED)
