"""jaxscale: how a distributed training run will perform, before you pay for it.

Each name below is loaded when it is first used, so that importing jaxscale costs nothing; those that answer a question
are a verb of the command line and what it acts on.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxscale.api.observed import compile_step, measure_step
    from jaxscale.api.plans import plan_run
    from jaxscale.api.predicted import explain_layout, export_layout, predict_step, search_layouts
    from jaxscale.api.tables import calibrate_stack, validate_runs
    from jaxscale.catalog import load_cluster, load_model
    from jaxscale.types import Layout, ModelShape, Workload

__version__ = "0.1.0"

# name -> the module that defines it
_HOMES = {
    "Layout": "jaxscale.types",
    "ModelShape": "jaxscale.types",
    "Workload": "jaxscale.types",
    "load_cluster": "jaxscale.catalog",
    "load_model": "jaxscale.catalog",
    "predict_step": "jaxscale.api.predicted",
    "search_layouts": "jaxscale.api.predicted",
    "explain_layout": "jaxscale.api.predicted",
    "export_layout": "jaxscale.api.predicted",
    "compile_step": "jaxscale.api.observed",
    "measure_step": "jaxscale.api.observed",
    "plan_run": "jaxscale.api.plans",
    "validate_runs": "jaxscale.api.tables",
    "calibrate_stack": "jaxscale.api.tables",
}

__all__ = [
    "Layout",
    "ModelShape",
    "Workload",
    "__version__",
    "calibrate_stack",
    "compile_step",
    "explain_layout",
    "export_layout",
    "load_cluster",
    "load_model",
    "measure_step",
    "plan_run",
    "predict_step",
    "search_layouts",
    "validate_runs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        from jaxscale.errors import nearest

        raise AttributeError(f"module 'jaxscale' has no attribute {name!r}.{nearest(name, _HOMES)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
