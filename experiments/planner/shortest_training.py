"""The shortest possible training, standard against layered accumulation (Lamy-Poirier 2021, arXiv 2106.02679).

    python experiments/planner/shortest_training.py

Data at a small batch and the critical batch come from Kaplan et al. 2020, as in the paper. The batch stops at the
critical one; chips are as many as help.
"""

from dataclasses import dataclass

from jaxscale.catalog import load_model
from jaxscale.cost.inventory import count_parameters
from jaxscale.plan.economics.time_optimal import Network, demand_of_tokens, fastest_training
from jaxscale.plan.laws import kaplan


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    name: str
    peak_flops_per_s: float
    network: Network


def _network(node_size: int, inner_bytes_per_s: float, outer_bytes_per_s: float) -> Network:
    return Network(node_size=node_size, inner_bytes_per_s=inner_bytes_per_s, outer_bytes_per_s=outer_bytes_per_s)


HARDWARE = (
    Hardware(name="A100, 8 a node, InfiniBand", peak_flops_per_s=312e12, network=_network(8, 300e9, 25e9)),
    Hardware(name="A100, 8 a node, an eighth of it", peak_flops_per_s=312e12, network=_network(8, 300e9, 3.1e9)),
    Hardware(name="H100, 8 a node, InfiniBand", peak_flops_per_s=989e12, network=_network(8, 450e9, 50e9)),
    Hardware(name="GB200, 72 a domain", peak_flops_per_s=2500e12, network=_network(72, 900e9, 50e9)),
)
RUNS = (("gpt3-175b", 3e11), ("megatron-1t", 1e12))


def main() -> None:
    print("| model | hardware | method | days | chips | layout | compute | bubble | tensor | pipeline | data | gain |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name, tokens in RUNS:
        shape = load_model(name)
        loss = kaplan.loss(count_parameters(shape).total, tokens)
        demand = demand_of_tokens(tokens, float(kaplan.critical_batch_tokens(loss)))
        for hardware in HARDWARE:
            found = {
                method: fastest_training(
                    shape, demand, hardware.network, peak_flops_per_s=hardware.peak_flops_per_s, method=method
                )
                for method in ("standard", "layered")
            }
            gain = found["standard"].training_s / found["layered"].training_s
            for method, best in found.items():
                shares = " | ".join(f"{100 * value / best.step_s:.0f}%" for value in best.parts_s.values())
                layout = f"dp {best.data}, tp {best.tensor}, pp {best.pipeline}, m {best.microbatches}"
                times = f"{gain:.2f}x" if method == "layered" else ""
                head = f"| {name} | {hardware.name} | {method} | {best.training_days:.2f} | {best.num_chips:,}"
                print(f"{head} | {layout} | {shares} | {times} |")


if __name__ == "__main__":
    main()
