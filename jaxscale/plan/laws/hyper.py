"""Learning rate, weight decay and schedule: laws that only hold along the batch path they were fitted on.

Step Law lets the batch grow with the data and finds a learning rate that rises with D; Bjorck et al. hold the batch
and find one that falls. The signs differ because the paths do, so each law names its path in `Law.batch_path`.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxscale.plan.law import Law, Number

# Step Law (arXiv 2503.04715): mean of the authors' 1000 bootstrap fits; the printed 1.79 is 1.7973 cut off.
STEP_LAW_BOOTSTRAP = {
    "coefficient": 1.7973,
    "params": -0.7129,
    "tokens": 0.3075,
    "batch": 0.5807,
    "batch_tokens": 0.5709,
}
STEP_LAW_INTERVAL_95 = {"params": (-0.774, -0.655), "tokens": (0.271, 0.345), "batch_tokens": (0.534, 0.606)}


def step_law_learning_rate(params: Number, tokens: Number) -> Number:
    """Peak learning rate 1.79 N^-0.713 D^0.307; N without embeddings, for MoE the total and not the active ones.

    Cosine down to 1e-5, AdamW, at the batch of `step_law_batch_tokens`.

    >>> f"{step_law_learning_rate(1e9, 20e9):.3g}"
    '0.000996'
    """
    return 1.79 * params**-0.713 * tokens**0.307


def step_law_batch_tokens(tokens: Number) -> Number:
    """Optimal batch 0.58 D^0.571, in tokens."""
    return 0.58 * tokens**0.571


def deepseek_learning_rate(flops: Number) -> Number:
    """DeepSeek LLM: near-optimal peak learning rate 0.3118 C^-0.1250, C = M D."""
    return 0.3118 * flops**-0.1250


def deepseek_batch_tokens(flops: Number) -> Number:
    """DeepSeek LLM: near-optimal batch 0.2920 C^0.3271, in tokens."""
    return 0.2920 * flops**0.3271


MINICPM_MUP_LEARNING_RATE = 0.01  # base rate under muP, stable from 40 million to 2.1 billion parameters (section 3.2)


def minicpm_batch_tokens(loss: Number) -> Number:
    """MiniCPM: optimal batch 1.21e9 / L^6.24 in tokens, L the C4 loss that training is to reach."""
    return 1.21e9 / loss**6.24


def porian_learning_rate(params: Number) -> Number:
    """Porian et al.: 3.7 N^-0.36, N with the head, at their batch."""
    return 3.7 * params**-0.36


def porian_batch_tokens(params: Number) -> Number:
    """Porian et al.: 3.7e-4 N^0.703 sequences of 2048, in tokens."""
    return 3.7e-4 * 2048 * params**0.703


def ladder_batch_sequences(params: Number, seq_len: int = 2048) -> Number:
    """OLMo ladder: 160 (N / 108e6)^(2/3) sequences of 2048; half as many of 4096 (Porian's law, rounded)."""
    return 160.0 * (params / 108e6) ** (2.0 / 3.0) * (2048.0 / seq_len)


def ladder_learning_rate(params: Number, seq_len: int = 2048) -> Number:
    """OLMo ladder: 0.0047 (N / 108e6)^(-1/3) at sequences of 2048; a quarter of it at 4096, as its code has it."""
    return 0.0047 * (params / 108e6) ** (-1.0 / 3.0) * (2048.0 / seq_len) ** 2


def ladder_warmup_tokens(params: Number) -> Number:
    """OLMo ladder and Porian et al.: warm up over as many tokens as the model has parameters."""
    return params


def horizon_transfer(
    rate: Number, tokens: Number, new_tokens: Number, *, params: Number = 1.0, new_params: Number = 1.0
) -> Number:
    """Move a tuned learning rate to another token horizon and size at a fixed batch (Bjorck et al. 2024).

    LR ~ N^-0.23 D^-0.32 (arXiv 2409.19913). Its prefactor is not usable as printed, so only ratios are.

    >>> round(horizon_transfer(1.0, 100e9, 1000e9), 4)
    0.4786
    """
    return rate * (new_tokens / tokens) ** -0.32 * (new_params / params) ** -0.23


def mup_transfer(
    rate: Number, width: Number, new_width: Number, role: Literal["hidden", "input", "output"] = "hidden"
) -> Number:
    """Move an Adam learning rate to another width under muP (Yang et al. 2022, Table 8).

    Hidden matrices: 1/width. Input weights and biases: unchanged. Output: unchanged, with the output multiplier scaled
    by `mup_output_multiplier`.
    """
    return rate * (width / new_width) if role == "hidden" else rate


def mup_init_std(std: Number, width: Number, new_width: Number) -> Number:
    """Initial standard deviation of hidden matrices under muP: variance ~ 1/fan_in."""
    return std * (width / new_width) ** 0.5


def mup_output_multiplier(width: Number, new_width: Number) -> Number:
    """Factor on the output logits under muP, relative to the width that was tuned."""
    return width / new_width


def mup_attention_scale(head_dim: Number, base_head_dim: Number) -> Number:
    """Attention scale under muP: 1/d instead of 1/sqrt(d), equal to the usual one at the tuned head width."""
    return base_head_dim**0.5 / head_dim


def batch_transfer(
    rate: Number, batch: Number, new_batch: Number, optimizer: Literal["adam", "sgd"] = "adam"
) -> Number:
    """Move a learning rate to another sub-critical batch: Adam as sqrt(B), SGD as B (Granziol et al. 2022)."""
    return rate * (new_batch / batch) ** (0.5 if optimizer == "adam" else 1.0)


def decay_timescale(tokens_per_param: Number) -> Number:
    """Power Lines (Bergsma et al. 2025): optimal AdamW timescale as a share of training, 1.084 TPP^-0.527."""
    return 1.084 * tokens_per_param**-0.527


def weight_decay(batch_tokens: Number, learning_rate: Number, tokens: Number, timescale: Number) -> Number:
    """Weight decay of a timescale: tau = B / (eta lambda D), so lambda = B / (eta D tau)."""
    return batch_tokens / (learning_rate * tokens * timescale)


def power_schedule_rate(batch_tokens: Number, tokens_seen: Number, a: float = 4.6, b: float = -0.51) -> Number:
    """Power scheduler (Shen et al. 2024): eta = B a t^b; its constants are not verified."""
    return batch_tokens * a * tokens_seen**b


Shape = Literal["cosine", "wsd", "linear"]


def schedule_factor(
    progress: Number, shape: Shape, *, warmup: float = 0.0, cooldown: float = 0.2, final: float = 0.0
) -> Number:
    """Learning rate as a share of its peak after `progress` (0 to 1) of training.

    cosine and linear fall from the end of warmup to `final`; wsd is flat until the last `cooldown` of training and
    falls as 1 - sqrt (Hagele et al. 2024: 10-20% of cooldown matches cosine, and the flat part can be branched).
    """
    progress = np.asarray(progress, dtype=float)
    ramp = np.minimum(progress / warmup, 1.0) if warmup else np.ones_like(progress)
    after = np.clip((progress - warmup) / (1.0 - warmup), 0.0, 1.0)
    if shape == "cosine":
        fall = 0.5 * (1.0 + np.cos(np.pi * after))
    elif shape == "linear":
        fall = 1.0 - after
    else:
        fall = 1.0 - np.sqrt(np.clip((progress - (1.0 - cooldown)) / cooldown, 0.0, 1.0))
    return ramp * (final + (1.0 - final) * fall)


def branched_cost(run_flops: Sequence[float], cooldown: float = 0.2) -> float:
    """Compute of a ladder of run lengths cooled down from one flat run, over running each alone (Hagele et al. 2024).

    >>> round(branched_cost([30e3, 40e3, 50e3]), 5)
    0.53333
    """
    longest = max(run_flops)
    return (longest + cooldown * (math.fsum(run_flops) - longest)) / math.fsum(run_flops)


LAWS = (
    Law(
        name="step_law",
        title="Step Law 2025",
        source="arXiv 2503.04715 and its repository",
        mark="VR",
        params="non_embedding",
        flops="-",
        dataset="in-house",
        fitted={"params": (2.15e8, 1.07e9), "tokens": (4e9, 1e11)},
        batch_path="optimal",
        note="learning rate holds at its own batch, which grows as D^0.571; MoE: total parameters",
        quantities={
            "learning_rate": lambda p: step_law_learning_rate(p.non_embedding, p.tokens),
            "batch_tokens": lambda p: step_law_batch_tokens(p.tokens),
        },
    ),
    Law(
        name="deepseek_hyper",
        title="DeepSeek LLM 2024, learning rate and batch",
        source="arXiv 2401.02954, formula 1, second-hand",
        mark="V2",
        params="active_non_embedding",
        flops="M D",
        dataset="in-house",
        fitted={"flops": (1e17, 2e19)},
        batch_path="optimal",
        quantities={
            "learning_rate": lambda p: deepseek_learning_rate(p.flops_per_token * p.tokens),
            "batch_tokens": lambda p: deepseek_batch_tokens(p.flops_per_token * p.tokens),
        },
    ),
    Law(
        name="minicpm_batch",
        title="MiniCPM 2024, batch by loss",
        source="arXiv 2404.06395, section 3.2",
        mark="VS",
        params="none",
        flops="-",
        dataset="C4 loss",
        fitted={"params": (9e6, 1.7e8)},
        in_panel=False,
        note="asks for the C4 loss to be reached",
        quantities={"batch_tokens": lambda p: minicpm_batch_tokens(p.loss)},
    ),
    Law(
        name="porian_hyper",
        title="Porian et al. 2024, learning rate and batch",
        source="arXiv 2406.19146, second-hand",
        mark="V2",
        params="with_head",
        flops="-",
        dataset="RefinedWeb",
        fitted={"params": (5e6, 9.02e8)},
        batch_path="chinchilla",
        quantities={
            "learning_rate": lambda p: porian_learning_rate(p.with_head),
            "batch_tokens": lambda p: porian_batch_tokens(p.with_head),
        },
    ),
    Law(
        name="olmo_ladder_hyper",
        title="OLMo ladder 2024, learning rate and batch",
        source="allenai/OLMo-ladder, ladder.py",
        mark="VS",
        params="non_embedding",
        flops="-",
        dataset="OLMo mix",
        fitted={"params": (1.9e8, 1.3e10)},
        batch_path="chinchilla",
        note="Porian's law rounded",
        quantities={
            "learning_rate": lambda p: ladder_learning_rate(p.non_embedding, p.seq_len),
            "batch_tokens": lambda p: ladder_batch_sequences(p.non_embedding) * 2048,
        },
    ),
)
