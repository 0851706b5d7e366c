"""What a scaling law is: functions, and everything needed to know when they may be believed.

A law is one `Law` record: where its constants were read, how it counts parameters and FLOPs, where it was fitted, and
its functions by quantity. Mixing counting conventions is the commonest mistake with scaling laws, so the functions in
`quantities` take a `Point`, which carries every count, and pick their own. The modules beside this one hold the bare
formulas in each law's own units, for whoever wants to check them against the paper.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jaxscale.errors import SpecError, nearest
from jaxscale.types._check import require_choice, require_positive

Number = Any  # a float or an array; formulas broadcast

# VS: constants read in the paper or its authors' repository. VR: reproduced here by running code on public data or
# constants. V2: read only in a second-hand account. FM: not verified. Only VS and VR are defaults.
Mark = Literal["VS", "VR", "V2", "FM"]
VERIFIED: tuple[Mark, ...] = ("VS", "VR")

MARK_MEANING: dict[str, str] = {
    "VS": "constants read in the primary source",
    "VR": "reproduced from public data or constants",
    "V2": "constants known second-hand only",
    "FM": "constants not verified",
}

# Which parameters a law's N counts.
ParamsConvention = Literal[
    "total", "non_embedding", "with_head", "active", "active_non_embedding", "non_vocabulary", "none"
]

Quantity = Literal[
    "loss",  # Point -> nats per token
    "allocation",  # compute in the law's FLOPs -> (parameters in the law's convention, tokens)
    "learning_rate",  # Point -> peak learning rate
    "batch_tokens",  # Point -> tokens of one optimizer step
    "critical_batch_tokens",  # Point -> tokens of one step beyond which more batch no longer saves steps in proportion
    "vocabulary",  # Point -> vocabulary size
]
QUANTITIES: tuple[str, ...] = get_args(Quantity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One training run in every counting convention at once; parameters are counts, `tokens` training tokens.

    `flops_per_token` is forward and backward with attention and without embeddings (DeepSeek's M). `num_experts` is 1
    for a dense model. `unique_tokens=0` means that no token repeats.
    """

    total: float
    active: float
    non_embedding: float
    active_non_embedding: float
    with_head: float
    non_vocabulary: float
    flops_per_token: float
    d_model: float
    tokens: float
    seq_len: int
    num_experts: float = 1.0
    unique_tokens: float = 0.0
    loss: float = math.nan  # nats per token, where a law asks for it

    def __post_init__(self) -> None:
        require_positive("point", total=self.total, active=self.active, tokens=self.tokens, d_model=self.d_model)

    def params(self, convention: ParamsConvention) -> float:
        """Parameters as `convention` counts them."""
        return self.total if convention == "none" else getattr(self, convention)

    @property
    def tokens_per_param(self) -> float:
        """Tokens for each parameter that a token meets."""
        return self.tokens / self.active


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """One published law. `fitted` maps params, tokens, flops or batch_tokens to the range that its runs covered."""

    name: str
    title: str
    source: str
    mark: Mark
    params: ParamsConvention
    flops: str  # how training compute is counted: "6ND", "M D", "-"
    fitted: Mapping[str, tuple[float, float]]
    quantities: Mapping[str, Callable[..., Any]]
    dataset: str = ""
    batch_unit: str = "tokens"
    note: str = ""
    batch_path: str = ""  # what batch a learning-rate law assumes: "optimal", "fixed", ...
    in_panel: bool = True  # False: shown on request, never chosen as the answer
    exponent_interval: tuple[float, float] | None = None  # published interval of a in N ~ C^a
    params_interval: Callable[[float], tuple[float, float]] | None = None  # FLOPs -> 95% interval of N*, where known

    def __post_init__(self) -> None:
        require_choice(f"law {self.name!r}", allowed=get_args(Mark), mark=self.mark)
        for quantity in self.quantities:
            require_choice(f"law {self.name!r}", allowed=QUANTITIES, quantity=quantity)

    @property
    def verified(self) -> bool:
        """Whether its constants may be a default."""
        return self.mark in VERIFIED

    def decades_outside(self, **values: float) -> dict[str, float]:
        """How many powers of ten each value lies outside the fitted range; values inside are left out."""
        outside = {}
        for name, value in values.items():
            low, high = self.fitted.get(name, (0.0, math.inf))
            if value > high:
                outside[name] = math.log10(value / high)
            elif value < low:
                outside[name] = math.log10(low / value)
        return outside

    def warnings(self, **values: float) -> list[str]:
        """Sentences for a reader: second-hand constants, and every value asked for outside the fitted range."""
        lines = [] if self.verified else [f"{self.name}: {MARK_MEANING[self.mark]} ({self.mark})"]
        for name, decades in self.decades_outside(**values).items():
            low, high = self.fitted[name]
            lines.append(
                f"{self.name}: {name}={values[name]:.3g} is {decades:.1f} decades outside its fitted range "
                f"{low:.3g} to {high:.3g}"
            )
        return lines


def find_law(laws: Mapping[str, Law], name: str) -> Law:
    """Look a law up by name."""
    if name not in laws:
        raise SpecError(f"law={name!r} is not known; known: {', '.join(laws)}.{nearest(name, laws, count=1)}")
    return laws[name]
