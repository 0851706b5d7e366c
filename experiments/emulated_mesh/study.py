"""What the study measures: two small models, one workload, and every layout of a space on 8 emulated devices."""

from pathlib import Path

import numpy as np

from jaxscale.catalog import load_cluster, load_model
from jaxscale.search import parse_limits
from jaxscale.search.space import chunks, space
from jaxscale.types import PRECISIONS, Layout, ModelShape, Workload
from jaxscale.types.legality import illegal_reasons

HERE = Path(__file__).parent
MODELS = ("dense", "moe")
CLUSTER = load_cluster("cpu:8")
WORKLOAD = Workload(seq_len=256, global_batch_size=8, precision=PRECISIONS["fp32"])
# One sequence a microbatch, no remat, ZeRO-3: every mesh, schedule, and (dense) sequence parallelism or not.
_LIMITS = "microbatch_size=1,remat=none,zero=3,context_method=ring,offload_optimizer=false,schedule=gpipe|1f1b"
LIMITS = {"dense": _LIMITS, "moe": f"{_LIMITS},sequence_parallel=false,pipeline<=2"}


def model(name: str) -> ModelShape:
    """One of the two models."""
    return load_model(str(HERE / "models" / f"{name}.yaml"))


def layouts(name: str) -> list[Layout]:
    """Every layout within the limits that breaks no rule, in the order of the search."""
    shape, found = model(name), []
    for chunk in chunks(space(shape, WORKLOAD, CLUSTER.num_devices, parse_limits(LIMITS[name]))):
        rules = illegal_reasons(shape, WORKLOAD, chunk.layouts, CLUSTER.num_devices)
        legal = ~np.any(list(rules.values()), axis=0)
        found += list(chunk.layouts.take(np.flatnonzero(legal)).layouts())
    return found
