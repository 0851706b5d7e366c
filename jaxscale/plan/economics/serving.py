"""What serving a model costs, by roofline: prefill and decode with a KV cache, on chips that share weights.

Compute, memory and network of one pass after Pope et al. 2022, "Efficiently Scaling Transformer Inference" (arXiv
2211.05102); what the network carries under each partitioning of the weights is in `partitioning`.
"""

from dataclasses import dataclass, replace
from typing import Literal

from jaxscale.cost.inventory import count_parameters
from jaxscale.cost.numbers import shape_numbers
from jaxscale.errors import InfeasibleError
from jaxscale.plan.economics.partitioning import Fabric, Partition, network_s
from jaxscale.types import Chip, Cluster, ModelShape

CacheSharding = Literal["heads", "batch"]  # KV cache split over chips by KV head, or by sequence (section 3.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """Shares of the peak that serving reaches; 1 is the pure roofline."""

    matmul: float = 0.8
    memory: float = 0.85
    network: float = 0.8
    hop_s: float = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPoint:
    """Where a model is served: chips, their network, number formats, and how weights and cache are split."""

    chip: Chip
    num_chips: int
    network_bytes_per_s: float  # out of one chip, over all its links
    torus_axes: int = 0  # of the network; 0 behind a switch
    partition: Partition = "2d"
    cache_sharding: CacheSharding = "batch"
    weight_bytes: float = 2.0
    cache_bytes: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingTime:
    """Seconds of one pass: `lower_s` if everything overlaps, `upper_s` if nothing does."""

    compute_s: float
    memory_s: float
    network_s: float
    mfu: float  # at upper_s, of the model's matmul FLOPs

    @property
    def lower_s(self) -> float:
        """The slowest of the three."""
        return max(self.compute_s, self.memory_s, self.network_s)

    @property
    def upper_s(self) -> float:
        """Their sum."""
        return self.compute_s + self.memory_s + self.network_s


def cache_values_per_token(shape: ModelShape) -> float:
    """Values in the KV cache of one token over all layers: 2 K H of a layer, or the latent and rope key of MLA."""
    if shape.mla is not None:
        return float(shape.num_layers * (shape.mla.kv_lora_rank + shape.mla.qk_rope_head_dim))
    return float(shape.num_layers * 2 * shape.num_kv_heads * shape.head_dim)


def cached_tokens(shape: ModelShape, context: float) -> float:
    """Tokens that the average layer keeps: sliding-window layers keep their window."""
    windowed = shape.num_window_layers
    return (
        windowed * min(context, shape.window or context) + (shape.num_layers - windowed) * context
    ) / shape.num_layers


def cache_bytes_per_chip(shape: ModelShape, point: ServingPoint, batch: float, context: float) -> float:
    """KV cache on one chip; by heads it is split at most over the KV heads, by batch over the sequences."""
    total = batch * cached_tokens(shape, context) * cache_values_per_token(shape) * point.cache_bytes
    heads = 1 if shape.mla is not None else shape.num_kv_heads
    ways = min(point.num_chips, heads if point.cache_sharding == "heads" else max(1.0, batch))
    return total / ways


def longest_context(shape: ModelShape, point: ServingPoint, batch: int, memory_share: float = 0.3) -> float:
    """Context at which the KV cache fills `memory_share` of memory (Pope et al., Table 1: 30%)."""
    one = cache_bytes_per_chip(shape, point, batch, 1.0)
    return memory_share * point.chip.hbm_bytes / one


def pass_time(
    shape: ModelShape,
    point: ServingPoint,
    *,
    batch: float,
    new_tokens: float,
    context: float,
    efficiency: Efficiency | None = None,
) -> ServingTime:
    """Time of one forward pass over `new_tokens` of each of `batch` sequences after `context` cached tokens.

    Prefill: many new tokens and no context. Decode: one new token. A matrix unit takes as long to load
    a tile of weights as to stream the tile's side of rows through it: fewer tokens than that cost as many.
    """
    efficiency = efficiency or Efficiency()
    count = count_parameters(shape)
    tokens = batch * new_tokens
    width = shape.num_heads * shape_numbers(shape).qk_head_dim
    seen = cached_tokens(shape, context) + 0.5 * new_tokens
    matmul_flops = 2.0 * (count.active - shape.vocab_size * shape.d_model * (not shape.tied_embeddings)) * tokens
    attention_flops = 4.0 * shape.num_layers * width * seen * tokens
    peak = point.num_chips * point.chip.peak("bf16") * efficiency.matmul
    touched = _weights_touched(shape, tokens) * point.weight_bytes / point.num_chips
    cache = cache_bytes_per_chip(shape, point, batch, context + new_tokens)
    filled = max(1.0, point.chip.matmul_tile / tokens)
    compute_s = (matmul_flops * filled + attention_flops) / peak
    memory_s = (touched + cache) / (point.chip.hbm_bytes_per_s * efficiency.memory)
    fabric = Fabric(
        num_chips=point.num_chips,
        bytes_per_s=point.network_bytes_per_s * efficiency.network,
        torus_axes=point.torus_axes,
        hop_s=efficiency.hop_s,
    )
    moved_s = network_s(shape, fabric, point.partition, tokens, point.weight_bytes)
    ideal_s = matmul_flops / (point.num_chips * point.chip.peak("bf16"))
    return ServingTime(
        compute_s=compute_s,
        memory_s=memory_s,
        network_s=moved_s,
        mfu=ideal_s / (compute_s + memory_s + moved_s),
    )


def _weights_touched(shape: ModelShape, tokens: float) -> float:
    """Parameters read by a pass: all dense ones, and the experts that any of its tokens chose."""
    count = count_parameters(shape)
    if shape.moe is None:
        return float(count.total)
    missed = (1.0 - shape.moe.experts_per_token / shape.moe.num_experts) ** tokens
    return count.total - count.experts * missed


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPrice:
    """The cheapest way to serve within a latency: dollars for a million tokens, averaged over prompts and answers."""

    num_chips: int
    batch: int
    partition: Partition
    prefill_dollars_per_million: float
    decode_dollars_per_million: float
    decode_s_per_token: float
    decode_mfu: float
    prefill_mfu: float

    def dollars(self, prompt_tokens: float, answer_tokens: float) -> float:
        """Dollars of serving that many tokens of prompts and of answers."""
        return (
            self.prefill_dollars_per_million * prompt_tokens + self.decode_dollars_per_million * answer_tokens
        ) / 1e6


def cheapest_serving(
    shape: ModelShape,
    cluster: Cluster,
    *,
    context: int = 4096,
    longest_token_s: float = 0.05,
    weight_bytes: float = 2.0,
    efficiency: Efficiency | None = None,
) -> ServingPrice:
    """Search chips (powers of two inside the fastest network), batch and partitioning for the cheapest decoded token.

    A decode step must fit weights and cache in memory and take at most `longest_token_s`. Prefill runs on the same
    chips with the cheaper of 2d weight-stationary and weight-gathered.
    """
    tier = cluster.tiers[0]
    axes = len(tier.shape) if tier.kind == "torus" else 0
    price_per_s = cluster.dollars_per_chip_hour / 3600.0
    best: ServingPrice | None = None
    for chips in (2**i for i in range(tier.size.bit_length()) if 2**i <= tier.size):
        for batch in (2**i for i in range(14)):
            for partition in ("1d", "2d"):
                point = ServingPoint(
                    chip=cluster.chip,
                    num_chips=chips,
                    network_bytes_per_s=max(1.0, 2.0 * axes) * tier.bytes_per_s,
                    torus_axes=axes,
                    partition=partition,
                    cache_sharding="batch" if batch >= chips else "heads",
                    weight_bytes=weight_bytes,
                )
                candidate = _price(shape, point, batch, context, longest_token_s, price_per_s, efficiency)
                if candidate and (best is None or _order(candidate) < _order(best)):
                    best = candidate
    if best is None:
        raise InfeasibleError(
            f"{shape.name} cannot be served on {cluster.name} at {context} tokens "
            f"within {longest_token_s * 1e3:.0f} ms a token"
        )
    return best


def _order(price: ServingPrice) -> tuple[float, float]:
    """Cheaper first; without a price, less chip time a token."""
    return price.decode_dollars_per_million, price.num_chips * price.decode_s_per_token / price.batch


def _price(
    shape: ModelShape, point: ServingPoint, batch: int, context: int, longest_token_s: float, price_per_s: float,
    efficiency: Efficiency | None,
) -> ServingPrice | None:  # fmt: skip
    weights = count_parameters(shape).total * point.weight_bytes / point.num_chips
    memory = weights + cache_bytes_per_chip(shape, point, batch, context)
    if memory > 0.9 * point.chip.usable_hbm_bytes:
        return None
    decode = pass_time(shape, point, batch=batch, new_tokens=1, context=context, efficiency=efficiency)
    if decode.upper_s > longest_token_s:
        return None
    prefill = min(
        (
            pass_time(
                shape,
                replace(point, partition=partition),
                batch=1,
                new_tokens=context,
                context=0,
                efficiency=efficiency,
            )
            for partition in ("2d", "weight_gathered")
        ),
        key=lambda time: time.upper_s,
    )
    dollars_per_s = point.num_chips * price_per_s
    return ServingPrice(
        num_chips=point.num_chips,
        batch=batch,
        partition=point.partition,
        prefill_dollars_per_million=1e6 * dollars_per_s * prefill.upper_s / context,
        decode_dollars_per_million=1e6 * dollars_per_s * decode.upper_s / batch,
        decode_s_per_token=decode.upper_s,
        decode_mfu=decode.mfu,
        prefill_mfu=prefill.mfu,
    )
