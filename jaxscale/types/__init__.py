"""Frozen values with invariants at construction; no I/O and no algorithms."""

from jaxscale.types.hardware import SHARED_MEMORY_PASSES, Chip, Cluster, Tier
from jaxscale.types.layout import AXES, Layout, LayoutBatch, format_layout, parse_layout
from jaxscale.types.model import MLAShape, ModelShape, MoEShape, RopeShape
from jaxscale.types.remat import REMAT_POLICIES, RematPolicy, own_remat, remat_policy
from jaxscale.types.results import Collective, Estimate
from jaxscale.types.stack import STACKS, Stack, default_stack
from jaxscale.types.workload import (
    OPTIMIZERS,
    PRECISIONS,
    Optimizer,
    Precision,
    Workload,
    optimizer_named,
    precision_named,
)

__all__ = [
    "AXES",
    "OPTIMIZERS",
    "PRECISIONS",
    "REMAT_POLICIES",
    "SHARED_MEMORY_PASSES",
    "STACKS",
    "Chip",
    "Cluster",
    "Collective",
    "Estimate",
    "Layout",
    "LayoutBatch",
    "MLAShape",
    "MoEShape",
    "ModelShape",
    "Optimizer",
    "Precision",
    "RematPolicy",
    "RopeShape",
    "Stack",
    "Tier",
    "Workload",
    "default_stack",
    "format_layout",
    "optimizer_named",
    "own_remat",
    "parse_layout",
    "precision_named",
    "remat_policy",
]
