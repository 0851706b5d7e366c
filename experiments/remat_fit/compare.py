"""How many compiles a remat policy and a microbatch cost: the integer program against a ladder with bisection.

python experiments/remat_fit/compare.py

The ladder is what MaxText's estimator does (maxtext 0.2.5, utils/estimator.py, `search`): policies from everything
recomputed over everything on the host to everything on the device, one tensor moved at a time, and for each the largest
batch by bisection between 1 and the one before. Here a compile of the ladder is answered by the cost model's memory, so
that its count takes no time; those of `jaxscale fit` are real.
"""

import dataclasses
from collections.abc import Iterator

from jaxscale.calibrate import own_stack
from jaxscale.catalog import load_cluster, load_model
from jaxscale.cli.common import Request, resolve
from jaxscale.cli.fit import MOST_COMPILES, confirm
from jaxscale.cost import estimate
from jaxscale.search.remat_fit import fit_remat
from jaxscale.search.search import DEFAULT_HEADROOM
from jaxscale.types import Cluster, Estimate, Layout, ModelShape, Workload, own_remat

CASES = (
    ("llama3-8b", "v5e-64", 8192, 128, "fsdp=64"),
    ("llama3-8b", "v5p-64", 8192, 128, "fsdp=32"),
    ("qwen3-14b", "v6e-64", 4096, 512, "fsdp=64"),
)
# MaxText's tensors of a gated, unfused block by its own priority (larger and more intense ones move last).
TENSORS = ("mlp_up", "mlp_gate", "mlp_down", "q", "k", "v", "attention_out", "attention")


def ladder() -> Iterator[str]:
    """Policies from nothing kept to everything on the device."""
    host: set[str] = set()
    device: set[str] = set()
    yield own_remat(device, host)
    for tensor in reversed(TENSORS):
        host.add(tensor)
        yield own_remat(device, host)
    for tensor in reversed(TENSORS):
        host.remove(tensor)
        device.add(tensor)
        yield own_remat(device, host)


class Ladder:
    """The search with bisection, counting what it asks of the compiler."""

    def __init__(self, shape: ModelShape, workload: Workload, cluster: Cluster, layout: Layout) -> None:
        self._asked = (shape, workload, cluster, layout)
        self.compiles = 0
        self.best: Estimate | None = None

    def search(self) -> None:
        """Walk the ladder; the fastest of what fits stays in `best`."""
        _, workload, _, layout = self._asked
        most = workload.global_batch_size // layout.batch_shards
        for remat in ladder():
            most = self._largest(remat, most)
            if most < 1:
                return
            e = self._priced(remat, max(d for d in range(1, most + 1) if workload.global_batch_size % d == 0))
            if self.best is None or e.step_time_s < self.best.step_time_s:
                self.best = e

    def _largest(self, remat: str, most: int) -> int:
        if not self._fits(remat, 1):
            return 0
        if most == 1 or self._fits(remat, most):
            return most
        low, high, found = 1, most, 1
        while low <= high:
            middle = (low + high) // 2
            if self._fits(remat, middle):
                found, low = middle, middle + 1
            else:
                high = middle - 1
        return found

    def _fits(self, remat: str, size: int) -> bool:
        self.compiles += 1
        e = self._priced(remat, size)
        return e.memory_bytes <= (1.0 - DEFAULT_HEADROOM) * e.memory_limit_bytes

    def _priced(self, remat: str, size: int) -> Estimate:
        shape, workload, cluster, layout = self._asked
        batch = size * layout.batch_shards
        one = dataclasses.replace(layout, remat=remat, microbatch_size=size)
        rounded = dataclasses.replace(workload, global_batch_size=max(1, workload.global_batch_size // batch) * batch)
        return estimate(shape, rounded, cluster, one, own_stack(cluster, rounded))


def fitted(request: Request) -> tuple[int, int, float]:
    """Compiles, integer programs and step time of `jaxscale fit`."""
    stack = own_stack(request.cluster, request.workload)
    fit = fit_remat(request.shape, request.workload, request.cluster, request.only_layout, stack=stack)
    confirmations = confirm(request, fit, MOST_COMPILES, lambda news: None)
    chosen = next(c.predicted for c in confirmations if c.fits)
    return len(confirmations), fit.num_programs, chosen.step_time_s


def main() -> None:
    print("| model | slice | layout | ladder: compiles | step s | fit: compiles | integer programs | step s |")
    print("|---|---|---|---|---|---|---|---|")
    for model, cluster, seq_len, batch, layout in CASES:
        request = resolve(model, (cluster,), seq_len=seq_len, global_batch_size=batch, layout=layout)
        walk = Ladder(load_model(model), request.workload, load_cluster(cluster), request.only_layout)
        walk.search()
        assert walk.best is not None
        compiles, programs, step_s = fitted(request)
        print(
            f"| {model} | {cluster} | {layout} | {walk.compiles} | {walk.best.step_time_s:.2f} | {compiles} "
            f"| {programs} | {step_s:.2f} |"
        )


if __name__ == "__main__":
    main()
