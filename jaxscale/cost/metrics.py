"""MFU, HFU, throughput and money: the only definitions.

MFU counts the FLOPs that the model asks for: forward plus twice that for backward, attention over every pair of
tokens unless `causal` says that only the visible half counts, nothing recomputed, nothing padded (PaLM, arXiv
2204.02311, appendix B, which counts attention in full). HFU adds what is recomputed, by the same convention.
"""

from jaxscale.cost.compute import attention_flops_per_token
from jaxscale.cost.numbers import Number
from jaxscale.cost.problem import Problem

BACKWARD_FLOPS = 2.0  # of the forward pass
SECONDS_PER_HOUR = 3600.0


def model_flops_per_token(p: Problem, *, causal: bool = False) -> Number:
    """FLOPs of one token's forward and backward pass by MFU's convention."""
    inv = p.inventory
    s = inv.numbers
    forward: Number = s.num_layers * attention_flops_per_token(p, causal=causal)
    for ops, layers in (
        (inv.attention, s.num_layers),
        (inv.dense, s.num_dense_layers),
        (inv.moe, s.num_moe_layers),
        (inv.head, 1.0),
    ):
        for op in ops:
            forward = forward + layers * op.flops
    return forward * (1.0 + BACKWARD_FLOPS)


def mfu(p: Problem, model_flops: Number, step_time_s: Number) -> Number:
    """Share of the chips' peak FLOP/s that `model_flops` a step come to."""
    return model_flops / (step_time_s * p.num_chips * p.peak_flops_per_chip)


def tokens_per_s_per_chip(p: Problem, step_time_s: Number) -> Number:
    """Training tokens that one chip processes a second."""
    return p.tokens_per_step / (step_time_s * p.num_chips)


def dollars_per_billion_tokens(p: Problem, step_time_s: Number) -> Number:
    """Rent of all chips while a billion tokens pass; zero where the price is unknown."""
    rate = p.dollars_per_chip_hour * p.num_chips / SECONDS_PER_HOUR
    return rate * step_time_s / p.tokens_per_step * 1e9
