"""Model shapes that somebody could build: a parameter count as heads, widths and layers, and every way of counting.

The laws speak of N; hardware runs matrices. `dense_shape` and `moe_shape` pick a decoder of the Llama kind whose
dimensions fill the matrix units and divide by the usual degrees of parallelism. `point_of` counts a shape in every
convention; `nominal_point` does so for a bare number, on a smooth family of the same proportions.
"""

import math
from dataclasses import replace

from jaxscale.cost.inventory import count_parameters
from jaxscale.errors import SpecError
from jaxscale.plan.law import ParamsConvention, Point
from jaxscale.types import ModelShape, MoEShape

VOCABULARY = 128_256  # Llama 3's; a vocabulary law may ask for another
ASPECT = 100.0  # d_model / num_layers of the published models of 1 to 400 billion parameters: 64 to 130
MLP_RATIO = 3.0  # d_ff / d_model of a gated MLP: 8/3 (Llama 1) to 3.5 (Llama 3)
_RATIO_LIMITS = (2.4, 4.2)
_ASPECT_LIMITS = (45.0, 165.0)
SMALLEST_PARAMS, LARGEST_PARAMS = 2e6, 2e13


def dense_shape(
    params: float, *, vocab_size: int = VOCABULARY, tile: int = 128, tied: bool | None = None
) -> ModelShape:
    """The buildable dense decoder closest to `params` total parameters.

    Widths are multiples of the matrix unit's `tile`, heads are 128 wide (64 in narrow models) and share up to 8 KV
    heads, the layer count divides by 2 or 4. Embeddings are tied under 3 billion parameters unless `tied` says
    otherwise.
    """
    _require_buildable(params)
    tied = params < 3e9 if tied is None else tied
    best: tuple[float, ModelShape] | None = None
    for d_model in _widths(params, tile):
        for num_layers in _layer_counts(d_model):
            candidate = _fit_width(params, d_model, num_layers, vocab_size, tied, tile)
            if candidate is not None and (best is None or candidate[0] < best[0]):
                best = candidate
    if best is None:
        raise SpecError(
            f"params={params:.3g}: no decoder with a vocabulary of {vocab_size:,} is that small; its embedding alone "
            f"takes {vocab_size * 128:.3g}. Use a smaller vocabulary"
        )
    return best[1]


def _require_buildable(params: float) -> None:
    if not SMALLEST_PARAMS <= params <= LARGEST_PARAMS:
        raise SpecError(
            f"params={params:.3g} is outside what can be built here, {SMALLEST_PARAMS:.0e} to {LARGEST_PARAMS:.0e}"
        )


def _widths(params: float, tile: int) -> list[int]:
    """Widths worth trying: those whose layers at the usual proportions would hold up to a few times `params`."""
    widths = []
    width = tile
    while 4 * width**3 / ASPECT < params * 40:
        widths.append(width)
        width += tile * (1 if width < 2048 else 4 if width < 8192 else 8)
    return widths


def _layer_counts(d_model: int) -> list[int]:
    low, high = d_model / _ASPECT_LIMITS[1], d_model / _ASPECT_LIMITS[0]
    step = 4 if high > 24 else 2
    first = max(step, math.ceil(low / step) * step)
    return list(range(first, max(first, math.floor(high)) + 1, step))


def _heads(d_model: int) -> tuple[int, int, int]:
    """Query heads, KV heads and head width; heads divide by 4 wherever the width allows it."""
    head_dim = 128 if d_model >= 1024 and (d_model // 128) % 4 == 0 else 64
    num_heads = d_model // head_dim
    num_kv_heads = next(kv for kv in (8, 4, 2, 1) if num_heads % kv == 0)
    return num_heads, num_kv_heads if num_heads > num_kv_heads else num_heads, head_dim


def _fit_width(
    params: float, d_model: int, num_layers: int, vocab_size: int, tied: bool, tile: int
) -> tuple[float, ModelShape] | None:
    """The MLP width that brings one (width, depth) closest to `params`, with a score: lower is better."""
    num_heads, num_kv_heads, head_dim = _heads(d_model)
    attention = 2 * d_model * head_dim * (num_heads + num_kv_heads)
    rest = vocab_size * d_model * (1 if tied else 2) + num_layers * (attention + 2 * d_model) + d_model
    step = 2 * tile if d_model >= 2048 else tile
    d_ff = round((params - rest) / (3 * d_model * num_layers) / step) * step
    if d_ff <= 0 or not _RATIO_LIMITS[0] <= d_ff / d_model <= _RATIO_LIMITS[1]:
        return None
    total = rest + 3 * d_model * d_ff * num_layers
    score = (
        5.0 * abs(math.log(total / params))
        + 0.2 * abs(math.log(d_model / num_layers / ASPECT))
        + 0.3 * abs(math.log(d_ff / d_model / MLP_RATIO))
        + (0.0 if num_heads % 8 == 0 else 0.05)
    )
    shape = ModelShape(
        name=size_name(total),
        num_layers=num_layers,
        d_model=d_model,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        d_ff=d_ff,
        vocab_size=vocab_size,
        tied_embeddings=tied,
        source="planned",
    )
    return score, shape


def moe_shape(
    active_params: float, experts: int, *, vocab_size: int = VOCABULARY, tile: int = 128, granularity: int | None = None
) -> ModelShape:
    """A mixture of experts with about `active_params` active and `experts` times the MLP weights of its dense twin.

    Each expert is cut in `granularity` (Krajewski et al. 2024: finer is better, 8 and more): the dense MLP width F
    becomes experts of width F/G, G of them for a token. By default 8, or less where F/G would not fill four tiles.
    """
    dense = dense_shape(active_params, vocab_size=vocab_size, tile=tile)
    if experts <= 1:
        return dense
    if granularity is None:
        granularity = next(g for g in (8, 4, 2, 1) if g == 1 or dense.d_ff / g >= 4 * tile)
    expert_d_ff = max(tile, round(dense.d_ff / granularity / tile) * tile)
    moe = MoEShape(num_experts=experts * granularity, experts_per_token=granularity, expert_d_ff=expert_d_ff)
    shape = replace(dense, moe=moe)
    return replace(
        shape, name=f"{size_name(count_parameters(shape).total)}-a{size_name(count_parameters(shape).active)}"
    )


def size_name(params: float) -> str:
    """A model's size as people write it.

    >>> size_name(8.03e9), size_name(124e6)
    ('8.0b', '124m')
    """
    for limit, unit in ((1e12, "t"), (1e9, "b")):
        if params >= 0.9995 * limit:
            value = params / limit
            return f"{value:.0f}{unit}" if value >= 99.5 else f"{value:.1f}{unit}"
    return f"{params / 1e6:.0f}m"


def point_of(
    shape: ModelShape, tokens: float, seq_len: int, *, unique_tokens: float = 0.0, loss: float = math.nan
) -> Point:
    """A training run of a shape, counted in every convention."""
    count = count_parameters(shape)
    active_blocks = count.active - count.embedding
    attention = 12.0 * shape.num_layers * shape.num_heads * shape.head_dim * seq_len
    experts = shape.moe.num_experts / shape.moe.experts_per_token if shape.moe else 1.0
    return Point(
        total=count.total,
        active=count.active,
        non_embedding=count.total - count.embedding,
        active_non_embedding=active_blocks,
        with_head=count.total - count.embedding + shape.vocab_size * shape.d_model,
        non_vocabulary=count.total - count.embedding,
        flops_per_token=6.0 * active_blocks + attention,
        d_model=shape.d_model,
        tokens=tokens,
        seq_len=seq_len,
        num_experts=experts,
        unique_tokens=unique_tokens,
        loss=loss,
    )


# Weights of a layer of the smooth family over d^2: attention with a quarter as many KV heads, gated MLP.
_LAYER_WEIGHTS = 2.5 + 3.0 * MLP_RATIO


def nominal_point(
    params: float,
    tokens: float,
    *,
    convention: ParamsConvention = "total",
    seq_len: int = 4096,
    vocab_size: int = VOCABULARY,
    unique_tokens: float = 0.0,
) -> Point:
    """A dense run of `params` parameters as `convention` counts them, on a smooth family without rounding."""
    d_model = _width_for(params, convention, vocab_size)
    blocks = _LAYER_WEIGHTS * d_model**3 / ASPECT
    table = vocab_size * d_model
    return Point(
        total=blocks + 2.0 * table,
        active=blocks + 2.0 * table,
        non_embedding=blocks,
        active_non_embedding=blocks,
        with_head=blocks + table,
        non_vocabulary=blocks,
        flops_per_token=6.0 * blocks + 12.0 * d_model / ASPECT * d_model * seq_len,
        d_model=d_model,
        tokens=tokens,
        seq_len=seq_len,
        unique_tokens=unique_tokens,
    )


def _width_for(params: float, convention: ParamsConvention, vocab_size: int) -> float:
    """Width of the smooth family with that many parameters: the root of w d^3 + t V d = N, by Newton's method."""
    tables = {"total": 2.0, "active": 2.0, "none": 2.0, "with_head": 1.0}.get(convention, 0.0)
    cubic, linear = _LAYER_WEIGHTS / ASPECT, tables * vocab_size
    width = (params / cubic) ** (1.0 / 3.0)
    for _ in range(60):
        excess = cubic * width**3 + linear * width - params
        width -= excess / (3.0 * cubic * width**2 + linear)
    return width
