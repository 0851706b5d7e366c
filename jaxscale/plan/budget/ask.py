"""What is asked of the planner, checked: a budget of compute, time, money, tokens or quality, and its constraints."""

import math
import re
from dataclasses import dataclass

from jaxscale.errors import SpecError
from jaxscale.types import Cluster

DAY_S = 86400.0
_TIME_S = {
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": DAY_S, "day": DAY_S, "days": DAY_S, "w": 7 * DAY_S,
    "week": 7 * DAY_S, "weeks": 7 * DAY_S, "month": 30 * DAY_S, "months": 30 * DAY_S, "year": 365 * DAY_S,
    "years": 365 * DAY_S,
}  # fmt: skip
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_FOR_TIME = re.compile(rf"^\s*(?P<chips>\S.*?)\s+for\s+(?P<amount>{_NUMBER})\s*(?P<unit>[a-z]+)\s*$", re.IGNORECASE)
_FOR_MONEY = re.compile(rf"^\s*\$\s*(?P<amount>{_NUMBER})\s*(?P<scale>[kKmMbB]?)\s+(?:on|of)\s+(?P<chips>\S.*?)\s*$")
_CHIPS = re.compile(r"^(?P<count>[-+]?\d+)\s*x\s*(?P<name>[a-z][\w.-]*)$", re.IGNORECASE)
_SLICES = re.compile(r"^\d+x\w+(-\d+|:[\dx]+)$")  # 2xv5p-256: a count of whole slices, not of chips

# The laws were fitted between 1e16 and 1e22 FLOPs and the largest runs published are about 5e26: an answer a hundred
# times outside is fiction.
LEAST_FLOPS, MOST_FLOPS = 1e14, 5e28
_LEAST_TOKENS, _MOST_TOKENS = 1e6, 1e16
_LONGEST_S = 20 * 365 * DAY_S
_MOST_EPOCHS = 1000.0
SEQ_LEN = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetText:
    """A budget as text says it: a cluster by name, and either how long or how much money."""

    cluster: str
    time_s: float | None = None
    dollars: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question. Exactly one of time_s (on `cluster`), flops, loss or tokens sets the budget.

    `tokens` may also come beside a compute budget and then fixes the data. `unique_tokens` are those that exist;
    `inference_tokens` are served over the model's life; `max_params` limits total parameters.
    """

    cluster: Cluster | None = None
    time_s: float | None = None
    flops: float | None = None
    loss: float | None = None
    tokens: float | None = None
    unique_tokens: float | None = None
    inference_tokens: float | None = None
    max_params: float | None = None
    moe: bool = False
    seq_len: int = SEQ_LEN
    second_hand: bool = False

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_one_budget(self)
        _check_ranges(self)


def parse_budget(text: str) -> BudgetText:
    """Read "256xh100-sxm for 21 days", "v5p-512 for 3 weeks" or "$2M on h100-sxm:256".

    >>> parse_budget("256xh100-sxm for 21 days")
    BudgetText(cluster='h100-sxm:256', time_s=1814400.0, dollars=None)
    """
    match = _FOR_TIME.match(text)
    if match:
        unit = match.group("unit").lower()
        if unit not in _TIME_S:
            raise SpecError(f"--budget {text!r}: {unit!r} is not a time; use hours, days, weeks, months or years")
        return BudgetText(
            cluster=_cluster_name(match.group("chips"), text), time_s=float(match.group("amount")) * _TIME_S[unit]
        )
    match = _FOR_MONEY.match(text)
    if match:
        scale = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}[match.group("scale").lower()]
        return BudgetText(
            cluster=_cluster_name(match.group("chips"), text), dollars=float(match.group("amount")) * scale
        )
    raise SpecError(f'--budget {text!r} is not understood; write "256xh100-sxm for 21 days" or "$2M on h100-sxm:256"')


def _cluster_name(chips: str, text: str) -> str:
    match = _CHIPS.match(chips)
    if match is None or _SLICES.match(chips):
        return chips
    if int(match.group("count")) <= 0:
        raise SpecError(f"--budget {text!r}: the number of chips must be above zero")
    return f"{match.group('name')}:{int(match.group('count'))}"


def time_for_money(cluster: Cluster, dollars: float) -> float:
    """Seconds that `dollars` buy of a whole cluster."""
    if not cluster.dollars_per_chip_hour:
        raise SpecError(f"--budget in dollars: the price of {cluster.name} is not known; give a time instead")
    return 3600.0 * dollars / (cluster.dollars_per_chip_hour * cluster.num_chips)


def _check_numbers(ask: Ask) -> None:
    for name in ("time_s", "flops", "loss", "tokens", "unique_tokens", "inference_tokens", "max_params"):
        value = getattr(ask, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise SpecError(f"--{_flag(name)} {value:g}: must be a finite number above zero")
    if not 128 <= ask.seq_len <= 2**24:
        raise SpecError(f"--context {ask.seq_len}: must be between 128 and 16,777,216 tokens")


def _flag(name: str) -> str:
    return {"time_s": "budget"}.get(name, name.replace("_", "-"))


def _check_one_budget(ask: Ask) -> None:
    given = [_flag(name) for name in ("time_s", "flops", "loss") if getattr(ask, name) is not None]
    if len(given) > 1:
        raise SpecError(f"--{' and --'.join(given)} contradict each other: each sets the compute; give one")
    if not given and ask.tokens is None:
        raise SpecError('nothing to plan from; give --budget "256xh100-sxm for 21 days", --flops, --loss or --tokens')
    if ask.loss is not None and ask.tokens is not None:
        raise SpecError("--loss and --tokens contradict each other: the loss decides how many tokens; give one")
    if ask.time_s is not None and ask.cluster is None:
        raise SpecError("--budget in time needs a cluster")


def _check_ranges(ask: Ask) -> None:
    if ask.flops is not None and not LEAST_FLOPS <= ask.flops <= MOST_FLOPS:
        side = (
            "under the smallest run that any law was fitted on"
            if ask.flops < LEAST_FLOPS
            else "over the largest run known"
        )
        raise SpecError(
            f"--flops {ask.flops:.3g}: more than a hundred times {side}; no law says anything there. "
            f"Ask between {LEAST_FLOPS:.0e} and {MOST_FLOPS:.0e}"
        )
    if ask.tokens is not None and not _LEAST_TOKENS <= ask.tokens <= _MOST_TOKENS:
        raise SpecError(f"--tokens {ask.tokens:.3g}: ask between {_LEAST_TOKENS:.0e} and {_MOST_TOKENS:.0e}")
    if ask.time_s is not None and ask.time_s > _LONGEST_S:
        raise SpecError(
            f"--budget: {ask.time_s / DAY_S / 365:.0f} years is longer than any hardware lives; ask for less than 20"
        )
    if ask.tokens is not None and ask.unique_tokens is not None and ask.tokens > _MOST_EPOCHS * ask.unique_tokens:
        raise SpecError(
            f"--tokens {ask.tokens:.3g} from --unique-tokens {ask.unique_tokens:.3g} is "
            f"{ask.tokens / ask.unique_tokens:,.0f} epochs; repetition is worth nothing after about 40"
        )
