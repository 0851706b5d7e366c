"""Counting parameters and FLOPs the way Hoffmann et al. did, so that their N and C can be met exactly."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HoffmannCount:
    """Parameters, and FLOPs of training on one sequence: three forward passes."""

    params: int
    training_flops_per_sequence: int


def hoffmann_count(
    *,
    num_layers: int,
    d_model: int,
    num_heads: int,
    head_dim: int,
    d_ff: int,
    vocab_size: int,
    seq_len: int,
    gated: bool = False,
    num_kv_heads: int | None = None,
) -> HoffmannCount:
    """Hoffmann et al. 2022, appendix F: the embedding is a matmul, attention full and not causal, softmax is in.

    Parameters count the embedding once and no norms. The paper's own models are not gated.

    >>> hoffmann_count(
    ...     num_layers=8, d_model=384, num_heads=6, head_dim=64, d_ff=1024, vocab_size=50257, seq_len=512, gated=True
    ... ).training_flops_per_sequence
    171834605568
    """
    width, matrices = num_heads * head_dim, 3 if gated else 2
    kv_width = (num_kv_heads or num_heads) * head_dim
    embedding = 2 * seq_len * vocab_size * d_model
    projections = 2 * 3 * seq_len * d_model * width
    scores = 2 * seq_len * seq_len * width
    softmax = 3 * num_heads * seq_len * seq_len
    output = 2 * seq_len * width * d_model
    mlp = 2 * seq_len * matrices * d_model * d_ff
    forward = 2 * embedding + num_layers * (projections + 2 * scores + softmax + output + mlp)
    layer_params = 2 * d_model * width + 2 * d_model * kv_width + matrices * d_model * d_ff
    return HoffmannCount(
        params=vocab_size * d_model + num_layers * layer_params, training_flops_per_sequence=3 * forward
    )
