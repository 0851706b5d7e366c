"""The training step run for real: small twins on emulated devices, and measurements on whatever devices are there."""

from jaxscale.measure.fit_cluster import fit_cluster
from jaxscale.measure.probe import ProbePlan, probe_plan, run_probe
from jaxscale.measure.shrink import Twin, shrink
from jaxscale.measure.step import measure
from jaxscale.measure.twin import TwinResult, run_twin

__all__ = [
    "ProbePlan",
    "Twin",
    "TwinResult",
    "fit_cluster",
    "measure",
    "probe_plan",
    "run_probe",
    "run_twin",
    "shrink",
]
