"""The planned run on its cluster: days, money, energy, serving, and what they rest on."""

from dataclasses import dataclass

from jaxscale.cost.inventory import count_parameters
from jaxscale.errors import InfeasibleError
from jaxscale.plan.budget.ask import DAY_S, Ask
from jaxscale.plan.budget.assumptions import Effect, effects
from jaxscale.plan.budget.decide import truth_of
from jaxscale.plan.budget.recipe import Recipe
from jaxscale.plan.economics.goodput import Goodput, Reliability, goodput
from jaxscale.plan.economics.serving import ServingPrice, cheapest_serving
from jaxscale.plan.economics.time_optimal import Fastest, demand_of_tokens, fastest_training, network_of
from jaxscale.types import Cluster, Estimate, ModelShape

PUE = 1.2  # facility energy over chip energy: an assumption; published averages run from 1.1 to 1.5
PROMPT_SHARE = 70.0 / 285.0  # of served tokens: 70 in and 215 out a request (Sardana et al. 2024, section 4)
_STATE_BYTES_PER_PARAM = 12.0  # a checkpoint: float32 master and two Adam moments


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The planned run on its cluster. Money and energy are None where price or power is not known.

    `shortest` is the fastest that any number of these chips could train the same at the critical batch.
    """

    cluster: str
    num_chips: int
    estimate: Estimate
    goodput: Goodput
    days: float
    dollars: float | None
    megawatt_hours: float | None
    serving: ServingPrice | None
    serving_dollars: float | None
    shortest: Fastest
    assumptions: tuple[Effect, ...]


def failures(shape: ModelShape, cluster: Cluster, reliability: Reliability | None) -> Goodput:
    """Goodput of training a shape on a cluster."""
    return goodput(cluster.num_chips, _num_hosts(cluster), _checkpoint_bytes(shape), reliability)


def serving_of(shape: ModelShape, cluster: Cluster, context: int) -> ServingPrice | None:
    """The cheapest serving on the cluster's chips, or None where the model does not fit its fast network."""
    try:
        return cheapest_serving(shape, cluster, context=context)
    except InfeasibleError:
        return None


def run_of(
    ask: Ask, cluster: Cluster, shape: ModelShape, recipe: Recipe, estimate: Estimate, reliability: Reliability | None
) -> Run:
    """Price a recipe at the speed of an estimate."""
    lost = failures(shape, cluster, reliability)
    days = recipe.steps * estimate.step_time_s / lost.share / DAY_S
    chip_hours = cluster.num_chips * days * 24.0
    price, power_w = cluster.dollars_per_chip_hour, cluster.chip.power_w
    serving = serving_of(shape, cluster, ask.seq_len)
    demand = ask.inference_tokens or 0.0
    prompt = PROMPT_SHARE * demand
    return Run(
        cluster=cluster.name,
        num_chips=cluster.num_chips,
        estimate=estimate,
        goodput=lost,
        days=days,
        dollars=chip_hours * price if price else None,
        megawatt_hours=chip_hours * power_w * PUE / 1e6 if power_w else None,
        serving=serving,
        serving_dollars=serving.dollars(prompt, demand - prompt) if serving and price and demand else None,
        shortest=_shortest(ask, cluster, shape, recipe),
        assumptions=effects(
            truth_of(ask),
            params=count_parameters(shape).active,
            tokens=recipe.tokens,
            days=days,
            lost=lost,
            num_chips=cluster.num_chips,
            num_hosts=_num_hosts(cluster),
            checkpoint_bytes=_checkpoint_bytes(shape),
            reliability=reliability or Reliability(),
            time_is_fixed=ask.time_s is not None,
            unique_tokens=ask.unique_tokens or 0.0,
        ),
    )


def _shortest(ask: Ask, cluster: Cluster, shape: ModelShape, recipe: Recipe) -> Fastest:
    """The time-optimal question: the data that a small batch would need, at the critical batch, layered."""
    least = recipe.tokens / recipe.data_over_least
    return fastest_training(
        shape,
        demand_of_tokens(least, recipe.critical_batch_tokens),
        network_of(cluster),
        peak_flops_per_s=cluster.chip.peak("bf16"),
        method="layered",
        seq_len=ask.seq_len,
    )


def _num_hosts(cluster: Cluster) -> int:
    return max(1, cluster.num_chips // cluster.chips_per_host)


def _checkpoint_bytes(shape: ModelShape) -> float:
    return _STATE_BYTES_PER_PARAM * count_parameters(shape).total
