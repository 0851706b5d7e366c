"""The shortest possible training time of a model: how far more chips help once the batch is the limit.

Lamy-Poirier 2021, "Layered gradient accumulation and modular pipeline parallelism" (arXiv 2106.02679) asks it. From
McCandlish et al. 2018, T(B) = S_min (1 + B_crit/B) t_step(B): a larger batch saves steps only up to B_crit, and a batch
split over more chips leaves each step with overhead that no chip removes. Two ways to run a step are compared:

* standard: one microbatch after the other through all layers; 1F1B pipeline, bubble (p-1)/m; the gradient reduction can
  hide only behind the last microbatch.
* layered: all microbatches through one layer before the next (layered accumulation) on a modular pipeline, layer l on
  stage l mod p; bubble (p-1)/(m L/p); the reduction of a layer hides behind the layers after it.

Notation: p stages, t tensor, d data, m microbatches, L layers, D d_model, s tokens of a microbatch.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxscale.cost.inventory import count_parameters
from jaxscale.errors import InfeasibleError
from jaxscale.plan.law import Number
from jaxscale.types import Cluster, ModelShape

Method = Literal["standard", "layered"]
_VALUE_BYTES = 2  # activations, gradients and parameters on the wire
_PASSES_WITH_RECOMPUTE = 8.0  # FLOPs of a parameter and token with full remat: forward twice, backward
_BACKWARD_SHARE = 2.0 / 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What the optimization asks for: serial steps at an unlimited batch, and the critical batch in tokens."""

    min_steps: float
    critical_batch_tokens: float

    def steps(self, batch_tokens: Number) -> Number:
        """Optimizer steps at a batch."""
        return self.min_steps * (1.0 + self.critical_batch_tokens / batch_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Bytes per second out of one chip: inside a node, and between nodes; a switch of `node_size` chips inside."""

    node_size: int
    inner_bytes_per_s: float
    outer_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fastest:
    """The fastest plan found: seconds of training and of a step, by part, and how it is spread."""

    method: Method
    training_s: float
    step_s: float
    steps: float
    batch_tokens: float
    num_chips: int
    data: int
    tensor: int
    pipeline: int
    microbatches: int
    parts_s: dict[str, float]  # of one step: compute, bubble, tensor, pipeline, data; they sum to step_s

    @property
    def training_days(self) -> float:
        """Days of training."""
        return self.training_s / 86400.0


def demand_of_tokens(least_tokens: float, critical_batch_tokens: float) -> Demand:
    """Demand of a run that needs `least_tokens` at a small batch: S_min = E_min / B_crit."""
    return Demand(min_steps=least_tokens / critical_batch_tokens, critical_batch_tokens=critical_batch_tokens)


def network_of(cluster: Cluster) -> Network:
    """The two levels that the comparison knows: the innermost tier, and the next one or a tenth of it."""
    inner = cluster.tiers[0]
    links = 2.0 * len(inner.shape) if inner.kind == "torus" else 1.0
    outer = cluster.tiers[1].bytes_per_s if len(cluster.tiers) > 1 else links * inner.bytes_per_s / 10.0
    return Network(node_size=inner.size, inner_bytes_per_s=links * inner.bytes_per_s, outer_bytes_per_s=outer)


def fastest_training(
    shape: ModelShape,
    demand: Demand,
    network: Network,
    *,
    peak_flops_per_s: float,
    method: Method,
    seq_len: int = 2048,
    efficiency: float = 0.6,
    most_chips: int = 2**24,
    most_batch_tokens: float = 0.0,
) -> Fastest:
    """Least training time over batch, data, tensor, pipeline degrees and microbatches of one sequence.

    `efficiency` is the share of peak that matmuls reach. The batch is at most `most_batch_tokens`, by default the
    critical batch, beyond which steps are bought with more and more data; `most_chips` limits only the search.
    """
    grid = _grid(shape, network, most_chips, (most_batch_tokens or demand.critical_batch_tokens) / seq_len)
    parts = _parts(shape, network, grid, seq_len, peak_flops_per_s * efficiency, method)
    step_s = np.sum(list(parts.values()), axis=0)
    batch_tokens = grid["data"] * grid["microbatches"] * float(seq_len)
    steps = demand.steps(batch_tokens)
    training_s = step_s * steps
    if not len(training_s):
        raise InfeasibleError(f"{shape.name}: no layout of at most {most_chips} chips to choose from")
    row = int(np.argmin(training_s))
    return Fastest(
        method=method,
        training_s=float(training_s[row]),
        step_s=float(step_s[row]),
        steps=float(steps[row]),
        batch_tokens=float(batch_tokens[row]),
        num_chips=int(grid["data"][row] * grid["tensor"][row] * grid["pipeline"][row]),
        parts_s={name: float(value[row]) for name, value in parts.items()},
        **{name: int(grid[name][row]) for name in ("data", "tensor", "pipeline", "microbatches")},
    )


def _grid(shape: ModelShape, network: Network, most_chips: int, most_sequences: float) -> dict[str, np.ndarray]:
    """Every combination of powers of two; stages divide the layers evenly enough to be counted as equal."""
    powers = 2 ** np.arange(25)
    tensor = powers[(powers <= network.node_size) & (powers <= shape.num_heads)]
    pipeline = powers[powers <= shape.num_layers]
    axes = np.meshgrid(powers[powers <= most_chips], tensor, pipeline, powers[:15], indexing="ij")
    data, tensor, pipeline, microbatches = (axis.ravel() for axis in axes)
    # Fewer microbatches than stages leave stages idle throughout.
    keep = (data * tensor * pipeline <= most_chips) & (microbatches >= pipeline)
    keep &= data * microbatches <= most_sequences
    return {
        "data": data[keep].astype(float),
        "tensor": tensor[keep].astype(float),
        "pipeline": pipeline[keep].astype(float),
        "microbatches": microbatches[keep].astype(float),
    }


def _parts(
    shape: ModelShape, network: Network, grid: dict[str, np.ndarray], seq_len: int, flops_per_s: float, method: Method
) -> dict[str, np.ndarray]:
    """Exposed seconds of one step by part, each [layouts]."""
    d, t, p, m = (grid[name] for name in ("data", "tensor", "pipeline", "microbatches"))
    layers = float(shape.num_layers)
    count = count_parameters(shape)
    attention_flops = 12.0 * layers * shape.num_heads * shape.head_dim * seq_len / 2.0  # causal
    flops_per_token = _PASSES_WITH_RECOMPUTE * count.active + attention_flops * _PASSES_WITH_RECOMPUTE / 6.0
    compute = m * seq_len * flops_per_token / (t * p * flops_per_s)
    chunks = layers / p if method == "layered" else 1.0
    bubble = compute * (p - 1.0) / (m * chunks)
    activation_bytes = seq_len * shape.d_model * _VALUE_BYTES
    # Six all-reduces of a layer's activations with recompute (Megatron: two in each of three passes).
    tensor = m * layers / p * 6.0 * 2.0 * (t - 1.0) / t * activation_bytes / network.inner_bytes_per_s
    sends = m * chunks * 2.0 * activation_bytes / t * (p > 1) / network.outer_bytes_per_s
    pipeline = np.maximum(0.0, sends - compute)
    reduced = 2.0 * _VALUE_BYTES * count.total / (t * p) * (d - 1.0) / d / network.outer_bytes_per_s
    hidden = compute * _BACKWARD_SHARE * ((1.0 - p / layers) if method == "layered" else 1.0 / m)
    data = np.maximum(0.0, reduced - hidden)
    return {"compute": compute, "bubble": bubble, "tensor": tensor, "pipeline": pipeline, "data": data}
