"""`jaxscale bench`: how fast jaxscale itself is, on this machine."""

import platform
import time
from dataclasses import dataclass

import click

from jaxscale.catalog import load_cluster, load_model
from jaxscale.cli.common import json_option, print_json
from jaxscale.search import search
from jaxscale.types import Workload

# A dense model on a TPU slice, and a mixture of experts, which has a sixth axis, on GPUs.
CASES = (("llama3-8b", "v5p-64", 128), ("mixtral-8x7b", "h100-sxm:64", 512))
SEQ_LEN = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The fastest of several whole searches of one space."""

    model: str
    cluster: str
    num_looked_at: int
    wall_s: float
    cpu_s: float

    @property
    def layouts_per_s(self) -> float:
        """Layouts looked at a second of wall time."""
        return self.num_looked_at / self.wall_s


@click.group()
def command() -> None:
    """Measure how fast jaxscale itself is."""


@command.command("search")
@click.option(
    "--repeat", type=click.IntRange(1, 100), default=3, show_default=True, help="Searches; the fastest counts."
)
@json_option
def bench_search(repeat: int, as_json: bool) -> None:
    """Measure the search: layouts looked at a second on one core.

    Every layout is enumerated, checked against the rules, priced in time and memory, and ranked; the records of the
    best are made. The work is on one thread.
    """
    timings = [time_search(*case, repeat=repeat) for case in CASES]
    total = sum(t.num_looked_at for t in timings)
    rate = total / sum(t.wall_s for t in timings)
    if as_json:
        print_json({
            "layouts_per_s": rate,
            "layouts_per_cpu_s": total / sum(t.cpu_s for t in timings),
            "num_layouts": total,
            "repeat": repeat,
            "machine": platform.processor() or platform.machine(),
            "cases": [
                {"model": t.model, "cluster": t.cluster, "num_layouts": t.num_looked_at, "wall_s": t.wall_s,
                 "cpu_s": t.cpu_s, "layouts_per_s": t.layouts_per_s}
                for t in timings
            ],
        })  # fmt: skip
        return
    for t in timings:
        rates = f"{t.num_looked_at:>10,} layouts in {t.wall_s:6.2f} s  {t.layouts_per_s:>12,.0f}/s"
        click.echo(f"{t.model:14} {t.cluster:14} {rates}")
    click.echo(f"{rate:,.0f} layouts a second on one core")


def time_search(model: str, cluster: str, global_batch_size: int, *, repeat: int) -> Timing:
    """Search one space several times and keep the fastest."""
    shape, machine = load_model(model), load_cluster(cluster)
    workload = Workload(seq_len=SEQ_LEN, global_batch_size=global_batch_size)
    runs = []
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        result = search(shape, workload, machine)
        runs.append((time.perf_counter() - wall, time.process_time() - cpu, result.num_looked_at))
    wall_s, _, looked_at = min(runs)
    return Timing(
        model=model, cluster=cluster, num_looked_at=looked_at, wall_s=wall_s, cpu_s=min(cpu for _, cpu, _ in runs)
    )
