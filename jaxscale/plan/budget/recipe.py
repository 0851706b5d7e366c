"""Batch size, learning rate and schedule of a planned run, each from a law on the batch path it was fitted on."""

import math
from dataclasses import dataclass

from jaxscale.plan.law import Point, Quantity
from jaxscale.plan.laws import batch as batch_laws
from jaxscale.plan.laws import hyper, laws_for

MIN_TOKENS_PER_CHIP = 1024  # of one step: under this a chip's matmuls are too thin to fill it
WARMUP_SHARE = 0.02  # at most: a model of few tokens a parameter would warm up for most of training
COOLDOWN_SHARE = 0.2
_WEIGHT_DECAY = 0.1  # common practice; a law with verified coefficients does not exist


@dataclass(frozen=True, slots=True, kw_only=True)
class LawValue:
    """What one law answers, with its mark and how far it is asked outside its data."""

    law: str
    mark: str
    value: float
    batch_path: str
    decades_outside: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the run is trained. Rates are peaks of AdamW; tokens are of one optimizer step unless said otherwise."""

    global_batch_size: int  # sequences
    batch_tokens: int
    steps: int
    tokens: int  # of the whole run
    critical_batch_tokens: float
    data_over_least: float  # data spent over what a small batch would need: 1 + B/B_crit
    learning_rate: float
    final_learning_rate: float
    weight_decay: float
    warmup_steps: int
    cooldown_steps: int  # of the alternative schedule, WSD
    schedule: str
    batch_path: str
    batch_by_law: tuple[LawValue, ...]
    learning_rate_by_law: tuple[LawValue, ...]
    notes: tuple[str, ...]


def round_sequences(sequences: float) -> int:
    """The nearest batch with three leading bits, k 2^j with k in 4..8, so that many degrees divide it.

    >>> round_sequences(1234), round_sequences(3.2)
    (1280, 3)
    """
    if sequences < 8:
        return max(1, round(sequences))
    unit = 2 ** (math.floor(math.log2(sequences)) - 2)
    return round(sequences / unit) * unit


def recipe(point: Point, *, num_chips: int = 1, second_hand: bool = False) -> Recipe:
    """Choose the batch by Step Law, raised for wide clusters up to the critical batch, then its learning rate."""
    notes = []
    optimal = float(hyper.step_law_batch_tokens(point.tokens))
    critical = float(batch_laws.zhang_critical_tokens(point.tokens))
    wanted, path = optimal, "optimal: B ~ D^0.571 (Step Law)"
    floor = float(MIN_TOKENS_PER_CHIP * num_chips)
    if optimal < floor and optimal < critical:
        wanted = min(floor, critical)
        path = "raised: Step Law's learning rate times sqrt(B / B_optimal) (Adam)"
        notes.append(
            f"{num_chips} chips need a larger batch than the {optimal:.3g} tokens of least loss; "
            f"raised towards the critical {critical:.3g}"
        )
    sequences = round_sequences(wanted / point.seq_len)
    batch_tokens = sequences * point.seq_len
    steps = max(1, round(point.tokens / batch_tokens))
    if steps < 1000:
        notes.append(f"only {steps} steps: too few for any schedule that the laws were fitted on")
    rate = float(hyper.step_law_learning_rate(point.non_embedding, point.tokens))
    rate = float(hyper.batch_transfer(rate, optimal, batch_tokens)) if path.startswith("raised") else rate
    warmup = min(float(hyper.ladder_warmup_tokens(point.active)), WARMUP_SHARE * point.tokens)
    return Recipe(
        global_batch_size=sequences,
        batch_tokens=batch_tokens,
        steps=steps,
        tokens=steps * batch_tokens,
        critical_batch_tokens=critical,
        data_over_least=float(batch_laws.samples_ratio(batch_tokens, critical)),
        learning_rate=rate,
        final_learning_rate=min(1e-5, 0.1 * rate),
        weight_decay=_WEIGHT_DECAY,
        warmup_steps=max(1, round(warmup / batch_tokens)),
        cooldown_steps=max(1, round(COOLDOWN_SHARE * steps)),
        schedule="cosine to the final rate, as Step Law was fitted; a flat rate with a 1-sqrt cooldown does as well",
        batch_path=path,
        batch_by_law=_values("batch_tokens", point, second_hand),
        learning_rate_by_law=_values("learning_rate", point, second_hand),
        notes=tuple(notes),
    )


def _values(quantity: Quantity, point: Point, second_hand: bool) -> tuple[LawValue, ...]:
    """Every law of a quantity, side by side."""
    return tuple(
        LawValue(
            law=law.name,
            mark=law.mark,
            value=float(law.quantities[quantity](point)),
            batch_path=law.batch_path,
            decades_outside=law.decades_outside(
                params=point.params(law.params), tokens=point.tokens, flops=point.flops_per_token * point.tokens
            ),
        )
        for law in laws_for(quantity, second_hand=second_hand)
    )
