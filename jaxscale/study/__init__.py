"""What was measured, remembered: a store that many processes can write at once, and sweeps that fill it."""

from jaxscale.study.compare import Difference, differences
from jaxscale.study.record import fault_of, readable
from jaxscale.study.store import Fault, Store
from jaxscale.study.sweep import Job, Outcome, job_of, run_sweep, stored
from jaxscale.study.table import read_table, write_table

__all__ = [
    "Difference",
    "Fault",
    "Job",
    "Outcome",
    "Store",
    "differences",
    "fault_of",
    "job_of",
    "read_table",
    "readable",
    "run_sweep",
    "stored",
    "write_table",
]
