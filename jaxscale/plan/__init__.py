"""From a budget to a model, a batch, a layout, days and money; the scaling laws behind it, and fitting your own.

* `jaxscale.plan.laws`: every law as data and functions.
* `jaxscale.plan.panel`: where the laws disagree, and what a wrong choice costs.
* `jaxscale.plan.fit`: laws fitted to your own runs.
* `jaxscale.plan.economics`: lifetime cost, goodput, serving by roofline, the shortest training time.
* `jaxscale.plan.budget`: `make_plan`, which joins them with the layout search.
"""

from jaxscale.plan.budget.ask import Ask, parse_budget, time_for_money
from jaxscale.plan.budget.planner import Plan, make_plan
from jaxscale.plan.laws import LAWS, law_named, laws_for
from jaxscale.plan.shapes import dense_shape, moe_shape, nominal_point, point_of

__all__ = [
    "LAWS",
    "Ask",
    "Plan",
    "dense_shape",
    "law_named",
    "laws_for",
    "make_plan",
    "moe_shape",
    "nominal_point",
    "parse_budget",
    "point_of",
    "time_for_money",
]
