"""Microbenchmarks of the devices that are there, in a child process of their own."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from jaxscale.errors import MeasurementError
from jaxscale.measure.events import Ending, run_child
from jaxscale.measure.probe_steps import probe_steps
from jaxscale.measure.step import child_environment
from jaxscale.measure.surroundings import load_afterwards, look_around
from jaxscale.types import PRECISIONS, Precision
from jaxscale.types._check import divisors
from jaxscale.types.codec import decode, encode
from jaxscale.types.measurement import ProbeResult, ProbeSample, ProbeStep

CHILD_MODULE = "jaxscale.measure.probe_child"
DEFAULT_WATCHDOG_S = 300.0
COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePlan:
    """What to measure. `matmul_shapes` are (m, k) of [m, k] x [k, k]; sizes are of one device."""

    num_devices: int
    emulated: bool
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    matmul_shapes: tuple[tuple[int, int], ...]
    stream_elements: tuple[int, ...]  # of passes over memory, float32; larger than the caches
    payload_bytes: tuple[int, ...]  # of collectives
    steps: tuple[ProbeStep, ...] = ()  # small whole steps
    num_trials: int = 5  # the best counts

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Sizes of a mesh axis that the devices divide into."""
        return tuple(size for size in divisors(self.num_devices) if size > 1)


def probe_plan(
    num_devices: int, *, emulated: bool, quick: bool = False, precision: Precision = PRECISIONS["bf16"]
) -> ProbePlan:
    """Sizes that suit emulated devices, which share a machine's cores, or real ones; `quick` is fewer of them.

    Whole steps, of the given precision, are of emulated devices only: real ones are few enough operations to price.
    """
    shapes = ((256, 64), (256, 256), (512, 256), (512, 512)) if emulated else ((4096, 1024), (4096, 4096), (8192, 8192))
    elements = (2**22, 2**23) if emulated else (2**26, 2**28)
    payloads = (2**12, 2**16, 2**18, 2**20) if emulated else (2**14, 2**18, 2**22, 2**26)
    steps = probe_steps(num_devices, precision) if emulated else ()
    if quick:
        shapes, elements, payloads, steps = shapes[1:2], elements[:1], payloads[1:3], ()
    return ProbePlan(
        num_devices=num_devices, emulated=emulated, matmul_shapes=shapes, stream_elements=elements,
        payload_bytes=payloads, steps=steps, num_trials=3 if quick else 5,
    )  # fmt: skip


def run_probe(
    plan: ProbePlan,
    *,
    watchdog_s: float = DEFAULT_WATCHDOG_S,
    on_news: Callable[[str], None] = lambda words: None,
) -> ProbeResult:
    """Run every microbenchmark and every small step of a plan on all devices at once.

    Raises MeasurementError where the process dies or goes silent, or too few devices are there.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    environment = child_environment(emulated=plan.emulated)
    before = look_around(environment)
    samples: list[ProbeSample] = []
    steps: list[tuple[ProbeStep, float]] = []  # with its time over the reference's
    found: dict = {}
    for event in run_child(CHILD_MODULE, encode(plan), environment=environment, watchdog_s=watchdog_s):
        if isinstance(event, Ending):
            if not found.get("done"):
                raise MeasurementError(f"probe: {found.get('message') or event.sentence}")
            continue
        phase = event.pop("phase")
        if phase == "sample":
            samples.append(decode(ProbeSample, event["sample"]))
            on_news(f"{samples[-1].what} {samples[-1].sizes} {samples[-1].dtype}")
        elif phase == "step":
            step = decode(ProbeStep, event["step"])
            steps.append((step, event["ratio"]))
            on_news(f"step of {step.shape.name} as {step.layout}")
        else:
            found |= event
    return ProbeResult(
        samples=tuple(samples),
        steps=tuple(dataclasses.replace(step, seconds=ratio * found["reference_s"]) for step, ratio in steps),
        device_kind=found["device_kind"],
        num_devices=plan.num_devices,
        memory_bytes=found["memory_bytes"],
        started_at=started_at,
        surroundings=load_afterwards(before),
    )
