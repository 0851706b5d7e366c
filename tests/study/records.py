"""Measurements that nobody had to wait for."""

import dataclasses
from typing import Any

from jaxscale.types.measurement import Measurement, Surroundings
from tests.measure.requests import request


def measurement(identifier: str = "a1", *, model: str = "tiny", **fields: Any) -> Measurement:
    made = Measurement(
        identifier=identifier,
        started_at="2026-01-02T03:04:05+00:00",
        request=request(model),
        status="ok",
        device_kind="cpu",
        num_devices=2,
        step_times_s=(0.1, 0.30000000000000004, 0.2),
        losses=(2.0, 1.5),
        mfu=1 / 3,
        surroundings=Surroundings(
            host="here", num_cores=2, load_before=0.5, load_after=0.75, free_memory_bytes=1e9,
            versions={"jax": "0.10"}, flags={"XLA_FLAGS": "--a=1"}, git_revision="", source_digest="d",
        ),
    )  # fmt: skip
    return dataclasses.replace(made, **fields)


def failed(identifier: str = "f1") -> Measurement:
    return measurement(
        identifier, status="out_of_memory", message='it said "no", twice,\nand more', step_times_s=(), mfu=None
    )
