"""Names and files -> values: chips, clusters, models and run specs. Strict YAML; every hardware figure has a source."""

from jaxscale.catalog.chips import chip_names, load_chip
from jaxscale.catalog.clusters import cluster_names, load_cluster
from jaxscale.catalog.models import load_model, model_names

__all__ = ["chip_names", "cluster_names", "load_chip", "load_cluster", "load_model", "model_names"]
