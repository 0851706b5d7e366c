"""From one slice description to the files that start a job on it: Cloud TPU, GKE, SLURM, SkyPilot."""

from jaxscale.launch.job import VERBS, Job, make_job
from jaxscale.launch.render import TARGETS, render
from jaxscale.launch.slice import Slice, load_slice

__all__ = ["TARGETS", "VERBS", "Job", "Slice", "load_slice", "make_job", "render"]
