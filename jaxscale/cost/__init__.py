"""The analytic cost model: pure array functions from model, workload, cluster and layouts to time, memory and money."""

from jaxscale.cost.inventory import count_parameters, inventory
from jaxscale.cost.problem import Problem, problem
from jaxscale.cost.records import estimate, estimate_rows, program_flops
from jaxscale.cost.step import EstimateBatch, estimate_batch

__all__ = [
    "EstimateBatch",
    "Problem",
    "count_parameters",
    "estimate",
    "estimate_batch",
    "estimate_rows",
    "inventory",
    "problem",
    "program_flops",
]
