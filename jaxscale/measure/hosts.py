"""One program on several hosts: which host this is, and how its process finds the others.

Launch files (`jaxscale launch`) set three variables on every host: JAX_COORDINATOR_ADDRESS (host:port of process 0, as
`jax.distributed` reads it), JAX_NUM_PROCESSES and JAX_PROCESS_ID. Where they are not set, there is one host.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from jaxscale.errors import MeasurementError

COORDINATOR, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_JOIN_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """This host's place among those that run the same program; one process a host."""

    index: int = 0
    count: int = 1
    coordinator: str = ""  # host:port

    @property
    def leads(self) -> bool:
        """Whether this is the host that keeps results and speaks to the user."""
        return self.index == 0


def this_host(environment: Mapping[str, str] = os.environ) -> Host:
    """This host's place; MeasurementError where the variables contradict each other."""
    count = _whole(environment, COUNT, 1)
    if count == 1:
        return Host()
    index, coordinator = _whole(environment, INDEX, 0), environment.get(COORDINATOR, "")
    if INDEX not in environment or not 0 <= index < count:
        raise MeasurementError(
            f"{INDEX}={environment.get(INDEX)!r} must be a number from 0 to {COUNT} - 1 = {count - 1}"
        )
    if not re.fullmatch(r"\S+:\d+", coordinator):
        raise MeasurementError(f"{COORDINATOR}={coordinator!r} must be host:port of process 0, as {COUNT}={count}")
    return Host(index=index, count=count, coordinator=coordinator)


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdigit() or (name == COUNT and not int(text)):
        raise MeasurementError(f"{name}={text!r} must be a whole number")
    return int(text)


def join(host: Host, *, emulated: bool) -> None:
    """Join the other hosts' processes, before JAX looks for devices; emulated ones speak through gloo."""
    if host.count == 1:
        return
    import jax

    if emulated:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator_address=host.coordinator,
        num_processes=host.count,
        process_id=host.index,
        initialization_timeout=_JOIN_TIMEOUT_S,
    )
