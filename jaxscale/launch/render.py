"""Launch files from templates. Values are quoted for the language they stand in: `sh`, `yaml`."""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jaxscale.errors import SpecError, nearest
from jaxscale.launch.job import COORDINATOR_PORT, POSTGRES_DRIVER, Job

GKE_ACCELERATORS = {  # values of the node label cloud.google.com/gke-tpu-accelerator
    "tpu-v3": "tpu-v3-slice",
    "tpu-v4": "tpu-v4-podslice",
    "tpu-v5e": "tpu-v5-lite-podslice",
    "tpu-v5p": "tpu-v5p-slice",
    "tpu-v6e": "tpu-v6e-slice",
    "tpu7x": "tpu7x",
}
SKYPILOT_GPUS = {  # by chip of the catalogue, the names that `sky show-gpus` lists
    "v100-sxm2-16gb": "V100",
    "v100-sxm2-32gb": "V100-32GB",
    "a100-sxm-40gb": "A100",
    "a100-pcie-40gb": "A100",
    "a100-sxm-80gb": "A100-80GB",
    "a100-pcie-80gb": "A100-80GB",
    "h100-sxm": "H100",
    "h100-pcie": "H100",
    "h200": "H200",
    "b200": "B200",
    "gb200": "GB200",
    "mi300x": "MI300X",
    "rtx4090": "RTX4090",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A way to start jobs: its template, the ending of its file, and what a job needs beside the common values."""

    template: str
    ending: str
    values: Callable[[Job], dict[str, Any]]


def _gcloud(job: Job) -> dict[str, Any]:
    settings = job.slice.cloud("gcloud")
    if job.slice.cluster.chip.name == "tpu7x":
        raise SpecError(f"{job.slice.cluster.name}: TPU7x is offered through GKE only; use gke")
    return {"settings": settings}


def _gke(job: Job) -> dict[str, Any]:
    settings, chip = job.slice.cloud("gke"), job.slice.cluster.chip.name
    if chip not in GKE_ACCELERATORS:
        raise SpecError(f"{job.slice.cluster.name}: GKE offers {', '.join(GKE_ACCELERATORS)}, not {chip}")
    environment = {name: value for name, value in job.environment.items() if name != "JAXSCALE_STORE"}
    return {
        "settings": settings, "accelerator": GKE_ACCELERATORS[chip], "environment": environment,
        "packages": (job.package, POSTGRES_DRIVER),
    }  # fmt: skip


def _slurm(job: Job) -> dict[str, Any]:
    cluster = job.slice.cluster
    if cluster.num_slices > 1:
        raise SpecError(f"{cluster.name}: SLURM does not tell slices how to find each other; use gcloud or gke")
    minutes = max(round(job.hours * 60), 1)
    return {"gpus": cluster.chips_per_host if cluster.chip.kind == "gpu" else 0, "minutes": minutes}


def _skypilot(job: Job) -> dict[str, Any]:
    cluster, settings = job.slice.cluster, job.slice.settings
    if settings is None:
        if cluster.chip.name not in SKYPILOT_GPUS:
            raise SpecError(
                f"{cluster.name}: SkyPilot has no name for {cluster.chip.name}; it has {', '.join(SKYPILOT_GPUS)}"
            )
        accelerators = f"{SKYPILOT_GPUS[cluster.chip.name]}:{cluster.chips_per_host}"
        return {"accelerators": accelerators, "infra": "", "runtime_version": "", "nodes": job.slice.hosts}
    if cluster.num_slices > 1 or cluster.chip.name == "tpu7x":
        raise SpecError(f"{cluster.name}: SkyPilot starts single slices of Cloud TPU; use gke")
    region = settings.zone.rpartition("-")[0]
    infra = f"gcp/{region}/{settings.zone}" if region else "gcp"
    return {
        "accelerators": f"tpu-{settings.accelerator_type}", "infra": infra,
        "runtime_version": settings.runtime_version, "nodes": 1,
    }  # fmt: skip


TARGETS: dict[str, Target] = {
    "gcloud": Target(template="gcloud.sh.j2", ending=".sh", values=_gcloud),
    "gke": Target(template="gke.yaml.j2", ending=".yaml", values=_gke),
    "slurm": Target(template="slurm.sh.j2", ending=".sbatch", values=_slurm),
    "skypilot": Target(template="skypilot.yaml.j2", ending=".yaml", values=_skypilot),
}


def render(job: Job, target: str) -> str:
    """The launch file of a job for one of TARGETS; SpecError where the target cannot start it."""
    if target not in TARGETS:
        raise SpecError(f"--to={target!r} is not one of {', '.join(TARGETS)}.{nearest(target, TARGETS)}")
    chosen = TARGETS[target]
    common = {
        "job": job,
        "slice": job.slice,
        "cluster": job.slice.cluster,
        "environment": job.environment,
        "packages": job.packages,
        "port": COORDINATOR_PORT,
        "command": shlex.join(("jaxscale", *job.command)),
    }
    return _environment().get_template(chosen.template).render(common | chosen.values(job))


@lru_cache(maxsize=1)
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # No HTML is written, so nothing is escaped for it; every value goes through one of the two filters.
    made = Environment(
        loader=PackageLoader("jaxscale.launch"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    made.filters["sh"] = lambda value: shlex.quote(str(value))
    made.filters["yaml"] = json.dumps  # a JSON string is a YAML string
    return made
