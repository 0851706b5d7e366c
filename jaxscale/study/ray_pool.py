"""Measurements spread over the nodes of a Ray cluster, one task each."""

import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from jaxscale.errors import JaxscaleError, MeasurementError
from jaxscale.study.pool import Lost, Task
from jaxscale.types.hardware import Chip
from jaxscale.types.measurement import Measurement, MeasureRequest

_RESOURCES = {"cpu": "num_cpus", "gpu": "num_gpus", "tpu": "TPU"}


class RayWorkers:
    """A pool of Ray tasks. Ray places them: an emulated mesh takes one CPU, others as many chips as they need.

    `address` is that of a running cluster ("auto", or ray://host:10001); empty starts Ray on this machine.
    """

    def __init__(self, count: int, task: Task, *, address: str = "") -> None:
        try:
            import ray
        except ImportError as error:
            raise MeasurementError("--ray needs Ray, which is not installed: pip install 'jaxscale[ray]'") from error
        self._ray = ray
        self._count = count
        self._task = task
        self._address = address
        self._tickets: dict[Any, int] = {}  # by the reference of a result
        self._started = False

    def __enter__(self) -> "RayWorkers":
        if not self._ray.is_initialized():
            quiet = {"logging_level": "error", "log_to_driver": False}
            try:
                self._ray.init(address=self._address or "local", **quiet)
            except (ConnectionError, ValueError) as error:
                raise MeasurementError(f"--ray={self._address}: no Ray cluster there: {error}") from error
            self._started = True
        self._remote = self._ray.remote(_run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reference in self._tickets:
            with contextlib.suppress(Exception):  # of a cluster that is gone; nothing is left to cancel there
                self._ray.cancel(reference, force=False)
        if self._started:
            self._ray.shutdown()

    @property
    def free(self) -> int:
        """How many more requests can be handed in."""
        return self._count - self.busy

    @property
    def busy(self) -> int:
        """How many are with Ray, at work or waiting for a place."""
        return len(self._tickets)

    def submit(self, ticket: int, request: MeasureRequest) -> None:
        """Hand a request to Ray."""
        options = _options(request.cluster.chip, request.cluster.num_chips)
        reference = self._remote.options(max_retries=0, **options).remote(self._task, request)
        self._tickets[reference] = ticket

    def results(self, timeout_s: float) -> Sequence[tuple[int, Measurement | Lost]]:
        """What has ended."""
        if not self._tickets:
            return []
        ended, _ = self._ray.wait(list(self._tickets), num_returns=len(self._tickets), timeout=timeout_s)
        return [(self._tickets.pop(reference), self._result(reference)) for reference in ended]

    def _result(self, reference: Any) -> Measurement | Lost:
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Lost(how=f"was lost by Ray ({type(error).__name__})")
        if isinstance(answer, JaxscaleError):
            raise answer
        return answer


def _options(chip: Chip, num_chips: int) -> dict[str, Any]:
    """What a task asks of Ray."""
    name = _RESOURCES[chip.kind]
    if chip.kind == "cpu":
        return {name: 1}
    return {"resources": {name: num_chips}} if chip.kind == "tpu" else {name: num_chips}


def _run(task: Task, request: MeasureRequest) -> Measurement | JaxscaleError:
    try:
        return task(request)
    except JaxscaleError as error:
        return error
