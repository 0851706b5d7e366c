"""What a search answers."""

from dataclasses import dataclass

from jaxscale.types.hardware import Cluster
from jaxscale.types.model import ModelShape
from jaxscale.types.results import Estimate
from jaxscale.types.workload import Workload

DOES_NOT_FIT = "does not fit in memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing changed, in words, and the layout that results; changes of one `kind` are alternatives."""

    what: str
    kind: str
    estimate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The layouts of one model on one cluster, ranked.

    `ranked` holds the answer and then spares in order, all of them fitting and no two tied; `top` is the answer. A mesh
    that breaks a rule counts as one layout looked at, whatever its options. `rejected` counts layouts by each rule that
    they break (one may break several) and those that do not fit.
    """

    shape: ModelShape
    workload: Workload
    cluster: Cluster
    objective: str  # time, money, memory
    limits: str  # as the user wrote them
    headroom: float  # share of a device's memory to be left free
    num_top: int
    ranked: tuple[Estimate, ...]
    pareto: tuple[Estimate, ...]  # fastest first; each needs less memory than the one before
    by_mesh: tuple[Estimate, ...]  # the best of each mesh, best first
    closest: tuple[Estimate, ...]  # do not fit; least memory first, one a mesh
    num_looked_at: int
    num_legal: int
    num_fitting: int
    num_meshes: int
    rejected: dict[str, int]
    seconds: float

    @property
    def top(self) -> tuple[Estimate, ...]:
        """The best layouts, as many as were asked for or fewer."""
        return self.ranked[: self.num_top]

    @property
    def layouts_per_s(self) -> float:
        """Layouts looked at a second, legality, pricing and selection included."""
        return self.num_looked_at / self.seconds

    @property
    def memory_budget_bytes(self) -> float:
        """What a layout may use of one device's memory."""
        chip = self.cluster.chip
        return (1.0 - self.headroom) * chip.usable_hbm_bytes / chip.devices_per_chip

    def to_json(self) -> dict:
        """The result as `--json` prints it."""
        return {
            "model": self.shape.name,
            "cluster": self.cluster.name,
            "num_chips": self.cluster.num_chips,
            "num_devices": self.cluster.num_devices,
            "seq_len": self.workload.seq_len,
            "global_batch_size": self.workload.global_batch_size,
            "precision": self.workload.precision.name,
            "optimizer": self.workload.optimizer.name,
            "objective": self.objective,
            "limits": self.limits,
            "headroom": self.headroom,
            "num_looked_at": self.num_looked_at,
            "num_legal": self.num_legal,
            "num_fitting": self.num_fitting,
            "num_meshes": self.num_meshes,
            "search_s": self.seconds,
            "layouts_per_s": self.layouts_per_s,
            "rejected": self.rejected,
            "top": [estimate.to_json() for estimate in self.top],
            "pareto": [estimate.to_json() for estimate in self.pareto],
            "closest": [estimate.to_json() for estimate in self.closest],
        }
