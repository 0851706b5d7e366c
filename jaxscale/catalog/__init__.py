"""Names and files -> values: chips, clusters, models and run specs. Strict YAML; every hardware figure has a source."""

from jaxscale.catalog.chips import chip_names, load_chip
from jaxscale.catalog.clusters import LaunchSettings, cluster_names, load_cluster, load_launch
from jaxscale.catalog.models import load_model, model_names
from jaxscale.catalog.spec import OutputSettings, RunSpec, SearchSettings, is_spec, load_spec

__all__ = [
    "LaunchSettings",
    "OutputSettings",
    "RunSpec",
    "SearchSettings",
    "chip_names",
    "cluster_names",
    "is_spec",
    "load_chip",
    "load_cluster",
    "load_launch",
    "load_model",
    "load_spec",
    "model_names",
]
