"""What was measured: one layout's training step on devices that are there, with all that is needed to repeat it."""

import math
import statistics
from dataclasses import dataclass, field
from typing import Literal, get_args

from jaxscale.errors import SpecError
from jaxscale.types._check import require_choice, require_positive_int
from jaxscale.types.hardware import Cluster
from jaxscale.types.layout import Layout
from jaxscale.types.model import ModelShape
from jaxscale.types.noise import NoiseScale
from jaxscale.types.workload import Workload

MeasurementStatus = Literal["ok", "out_of_memory", "not_a_number", "hang", "crash"]
MEASUREMENT_STATUSES: tuple[str, ...] = get_args(MeasurementStatus)
MemorySource = Literal["device", "process", "none"]

OUTLIER_DEVIATIONS = 5.0  # median absolute deviations from the median, scaled to a normal's standard deviation
NORMAL_MAD = 1.4826  # standard deviations of a normal in one median absolute deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRequest:
    """A step to run: `num_warmup_steps` that are timed apart, then `num_steps` that count.

    A cluster of kind cpu is emulated; any other must be what JAX finds on this machine.
    """

    shape: ModelShape
    workload: Workload
    layout: Layout
    cluster: Cluster
    num_steps: int = 10
    num_warmup_steps: int = 2
    seed: int = 0
    trace_dir: str = ""  # where to leave a profiler trace of two more steps; empty = none
    noise_scale: bool = False  # estimate the gradient noise scale, for one more pass over the gradients

    def __post_init__(self) -> None:
        require_positive_int("measurement", num_steps=self.num_steps)
        require_positive_int("measurement", minimum=0, num_warmup_steps=self.num_warmup_steps, seed=self.seed)

    @property
    def emulated(self) -> bool:
        """Whether the devices are emulated on this machine's cores."""
        return self.cluster.chip.kind == "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where and with what a measurement ran."""

    host: str
    num_cores: int
    load_before: float  # mean number of runnable processes over the last minute (`os.getloadavg`)
    load_after: float
    free_memory_bytes: float  # before
    versions: dict[str, str]  # of Python, jaxscale, JAX and the compilers
    flags: dict[str, str]  # environment variables that steer JAX and its compilers
    git_revision: str  # of jaxscale's checkout, with "+changes" where files differ from it; empty where there is none
    source_digest: str  # of the code that makes the step


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What came out. A step that ran out of memory, hung or died has a status, a message and the steps that it did.

    Times are of whole optimizer steps, in the order in which they ran, from call to the last device's result.
    """

    identifier: str
    started_at: str  # UTC, ISO 8601
    request: MeasureRequest
    status: MeasurementStatus
    message: str = ""  # why, where the status is not ok
    device_kind: str = ""
    num_devices: int = 0
    lower_s: float = 0.0  # trace and lower to the compiler's input
    compile_s: float = 0.0
    init_s: float = 0.0
    warmup_times_s: tuple[float, ...] = ()
    step_times_s: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()  # of warm-up and timed steps, all on one batch
    peak_memory_bytes: float = 0.0  # of the fullest device, or of the process (see memory_source)
    memory_source: MemorySource = (
        "none"  # device: the devices' own statistics; process: resident set, compiler included
    )
    mfu: float | None = None  # by the cluster's peak FLOP/s; None where there is no step time
    hfu: float | None = None
    noise: NoiseScale | None = None  # over all steps, which see one batch; None where not asked or not to be seen
    surroundings: Surroundings | None = None

    def __post_init__(self) -> None:
        require_choice("measurement", allowed=MEASUREMENT_STATUSES, status=self.status)
        if self.status == "ok" and not self.step_times_s:
            raise SpecError(f"measurement {self.identifier}: status=ok needs at least one step time")

    @property
    def median_s(self) -> float | None:
        """Median step time; None where no timed step was completed."""
        return statistics.median(self.step_times_s) if self.step_times_s else None

    @property
    def spread_s(self) -> float | None:
        """Robust standard deviation of the step time (1.4826 median absolute deviations)."""
        median = self.median_s
        if median is None:
            return None
        return NORMAL_MAD * statistics.median(abs(time - median) for time in self.step_times_s)

    @property
    def outliers(self) -> tuple[int, ...]:
        """Indices of timed steps further than five robust standard deviations from the median."""
        median, spread = self.median_s, self.spread_s
        if median is None or not spread:
            return ()
        far = OUTLIER_DEVIATIONS * spread
        return tuple(i for i, time in enumerate(self.step_times_s) if abs(time - median) > far)

    @property
    def loss_is_finite(self) -> bool:
        """Whether every loss seen is a finite number."""
        return all(math.isfinite(loss) for loss in self.losses)

    @property
    def loss_falls(self) -> bool:
        """Whether the last loss is below the first; every step sees the same batch, so it should be."""
        return len(self.losses) > 1 and self.losses[-1] < self.losses[0]

    @property
    def tokens_per_s_per_chip(self) -> float | None:
        """Training tokens that one chip processes a second."""
        median = self.median_s
        if median is None:
            return None
        return self.request.workload.tokens_per_step / (median * self.request.cluster.num_chips)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSample:
    """One microbenchmark on all devices at once: seconds of one operation on one device.

    `what` is matmul, copy, vector, host_copy, dispatch or a collective's kind. `sizes` are m, k, n of a matmul, else
    the elements that one device works on; a collective's `payload_bytes` is as in `Collective.bytes_each`.
    """

    what: str
    dtype: str
    seconds: float
    sizes: tuple[int, ...] = ()
    payload_bytes: float = 0.0
    group_size: int = 1  # members of a collective's group; the groups of a mesh axis run at once
    flops: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeStep:
    """A small training step that a probe runs on all devices; `seconds` is its best time, 0 before it ran."""

    shape: ModelShape
    workload: Workload
    layout: Layout
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """Everything that a probe saw, and where."""

    samples: tuple[ProbeSample, ...]
    steps: tuple[ProbeStep, ...] = ()
    device_kind: str
    num_devices: int
    memory_bytes: float  # that one device can allocate
    started_at: str
    surroundings: Surroundings | None = None
    notes: tuple[str, ...] = field(default=())
