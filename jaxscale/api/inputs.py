"""What calls accept: values, or the names and texts that the command line reads."""

from pathlib import Path

from jaxscale.calibrate import own_stack
from jaxscale.catalog import load_cluster, load_model
from jaxscale.report.kinds.shared import Subject
from jaxscale.types import Cluster, Layout, ModelShape, Stack, Workload, parse_layout

Model = ModelShape | str | Path
AnyCluster = Cluster | str | Path
AnyLayout = Layout | str


def subject_of(model: Model, workload: Workload, cluster: AnyCluster, stack: Stack | None = None) -> Subject:
    """Resolve names; without a `stack`, jaxscale's own training step on that chip is meant."""
    shape = model if isinstance(model, ModelShape) else load_model(str(model))
    where = cluster if isinstance(cluster, Cluster) else load_cluster(str(cluster))
    return Subject(shape=shape, workload=workload, cluster=where, stack=stack or own_stack(where, workload))


def layout_of(layout: AnyLayout) -> Layout:
    """A layout, or one written as `--layout` reads it."""
    return layout if isinstance(layout, Layout) else parse_layout(layout)
