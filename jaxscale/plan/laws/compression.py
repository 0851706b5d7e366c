"""What fewer bits and fewer weights cost in loss, and what attention heads cost at long context."""

from dataclasses import dataclass

import numpy as np

from jaxscale.plan.law import Law, Number, Point
from jaxscale.plan.laws.dense import Additive

# Kumar et al. 2024 (arXiv 2411.04330, appendix K, Table 2); fitted up to 1.7 billion parameters and 26 billion tokens.
KUMAR = Additive(E=2.7648, A=4299.0, B=18060.0, alpha=0.4965, beta=0.4965)
KUMAR_GAMMA_BITS = {"weights": 2.6745, "activations": 2.2102, "kv_cache": 0.9578}
KUMAR_PTQ = {"C_T": 0.0598, "gamma_D": 0.5068, "gamma_N": 0.3439, "gamma_post": 0.5907}


def precision_share(bits: Number, gamma_bits: Number) -> Number:
    """Share of parameters that count at a precision: 1 - exp(-P / gamma) (eq. 3).

    The text leaves out offsets that its constants were fitted with, so optima of bits derived from it come out low.

    >>> [round(float(precision_share(bits, 2.6745)), 3) for bits in (8, 4, 3)]
    [0.95, 0.776, 0.674]
    """
    return -np.expm1(-bits / gamma_bits)


def effective_params(params: Number, weights: Number = 16, activations: Number = 16, kv_cache: Number = 16) -> Number:
    """Parameters that a model trained at these bits is worth (eq. 4)."""
    gamma = KUMAR_GAMMA_BITS
    return (
        params
        * precision_share(weights, gamma["weights"])
        * precision_share(activations, gamma["activations"])
        * precision_share(kv_cache, gamma["kv_cache"])
    )


def precision_loss(
    params: Number, tokens: Number, *, weights: Number = 16, activations: Number = 16, kv_cache: Number = 16
) -> Number:
    """Loss in nats/token of training at these bits (eq. 9)."""
    return KUMAR.loss(effective_params(params, weights, activations, kv_cache), tokens)


def post_training_degradation(params: Number, tokens: Number, bits: Number) -> Number:
    """Loss added by quantizing the weights of a finished model: C_T exp(-P/gamma) D^gamma_D / N^gamma_N (eq. 2).

    It grows with tokens: an over-trained model suffers more.
    """
    k = KUMAR_PTQ
    return k["C_T"] * np.exp(-bits / k["gamma_post"]) * tokens ** k["gamma_D"] / params ** k["gamma_N"]


def kbit_params(total_bits: Number, bits: Number = 4.0) -> Number:
    """Parameters that fit a budget of weight bits; 4 bits are the optimum (Dettmers and Zettlemoyer 2023)."""
    return total_bits / bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """Frantar et al. 2023 (arXiv 2309.08520): L = (a_S (1-S)^b_S + c_S) N_nz^-b_N + (a_D/D)^b_D + c.

    N_nz counts weights that are not zero, S is the share that is.
    """

    a_S: float
    b_S: float
    c_S: float
    b_N: float
    a_D: float
    b_D: float
    c: float

    def loss(self, nonzero_params: Number, tokens: Number, zeros: Number = 0.0) -> Number:
        """Loss at sparsity `zeros` (0 to 1)."""
        capacity = (self.a_S * (1.0 - zeros) ** self.b_S + self.c_S) / nonzero_params**self.b_N
        return capacity + (self.a_D / tokens) ** self.b_D + self.c

    def dense_multiplier(self, zeros: Number) -> Number:
        """Dense model, in units of the sparse one's non-zero weights, of the same capacity.

        >>> round(FRANTAR["t5_c4"].dense_multiplier(0.75), 2)
        2.16
        """
        return ((self.a_S + self.c_S) / (self.a_S * (1.0 - zeros) ** self.b_S + self.c_S)) ** (1.0 / self.b_N)


FRANTAR = {
    "t5_c4": Sparse(a_S=16.8, b_S=0.722, c_S=45.0, b_N=0.245, a_D=6.90e8, b_D=0.203, c=0.651),
    "vit_jft": Sparse(a_S=294.0, b_S=0.821, c_S=468.0, b_N=0.392, a_D=2.37e8, b_D=0.890, c=4.517),
}


def average_params(dense: Number, final: Number, start: Number = 0.25, stop: Number = 0.75) -> Number:
    """Average parameters over training of a model pruned linearly between two shares of its compute.

    Sparse pre-training follows the dense law at the average parameter count, and pruning between 25% and 75% of
    compute is the best span (Jin et al. 2025, "The Journey Matters", abstract). Shares of compute stand for shares of
    steps here.
    """
    middle = 0.5 * (start + stop)
    return dense * middle + final * (1.0 - middle)


def attention_flops_per_token(context: Number, num_layers: Number, head_dim: Number, num_heads: Number) -> Number:
    """Inference FLOPs of attention of one token: 4 T L d_h n_h (cost-optimal GQA, arXiv 2503.09579)."""
    return 4.0 * context * num_layers * head_dim * num_heads


def cache_values(context: Number, num_layers: Number, head_dim: Number, num_kv_heads: Number) -> Number:
    """Values in the KV cache of one sequence: 2 T L d_h n_kv."""
    return 2.0 * context * num_layers * head_dim * num_kv_heads


def serving_cost(
    params: Number, context: Number, num_layers: Number, head_dim: Number, num_heads: Number, num_kv_heads: Number
) -> Number:
    """Cost-optimal GQA: 0.9 M^0.5 + 0.1 C^(1/3), M = N + cache values, C = 2N + attention FLOPs a token."""
    memory = params + cache_values(context, num_layers, head_dim, num_kv_heads)
    flops = 2.0 * params + attention_flops_per_token(context, num_layers, head_dim, num_heads)
    return 0.9 * memory**0.5 + 0.1 * flops ** (1.0 / 3.0)


def heads_loss(params: Number, a: float, b: float, E: float) -> Number:
    """Loss of one head configuration by size, (a/N)^b + E; fitted for each (n_h, n_kv), constants not published."""
    return (a / params) ** b + E


GQA_EXAMPLE = {"context": 128_000, "loss": 2.615, "num_heads": 8, "num_kv_heads": 1, "params": 1.8e9}  # second-hand


def _kumar(point: Point) -> Number:
    return KUMAR.loss(point.non_embedding, point.tokens)


LAWS = (
    Law(
        name="kumar",
        title="Kumar et al. 2024, precision",
        source="arXiv 2411.04330, appendix K, Table 2",
        mark="VS",
        params="non_embedding",
        flops="6ND P/16",
        dataset="Dolma",
        fitted={"params": (3e7, 1.7e9), "tokens": (1.5e9, 2.6e10)},
        note="loss at 16 bits; use precision_share for fewer",
        in_panel=False,
        quantities={"loss": _kumar, "allocation": KUMAR.optimum},
    ),
    Law(
        name="frantar_t5",
        title="Frantar et al. 2023, sparse pre-training, T5/C4",
        source="arXiv 2309.08520, second-hand",
        mark="V2",
        params="non_embedding",
        flops="-",
        dataset="C4 (T5)",
        fitted={"params": (6.6e5, 4.25e7), "tokens": (6.55e10, 1.05e12)},
        in_panel=False,
        quantities={"loss": lambda p: FRANTAR["t5_c4"].loss(p.non_embedding, p.tokens)},
    ),
)
