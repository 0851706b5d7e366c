"""What is launched on: a cluster, and for a TPU slice the names under which its cloud offers it."""

from dataclasses import dataclass

from jaxscale.catalog import LaunchSettings, load_cluster, load_launch
from jaxscale.errors import SpecError
from jaxscale.types import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A cluster to launch on. One process a host; `settings` are there for TPU slices."""

    cluster: Cluster
    settings: LaunchSettings | None

    @property
    def hosts(self) -> int:
        """Hosts of all slices."""
        return self.cluster.num_chips // self.cluster.chips_per_host

    @property
    def hosts_per_slice(self) -> int:
        """Hosts of one slice."""
        return self.hosts // self.cluster.num_slices

    @property
    def environment(self) -> dict[str, str]:
        """Variables that the description asks for."""
        return dict(self.settings.environment) if self.settings else {}

    def cloud(self, target: str) -> LaunchSettings:
        """The cloud's names for it, which `target` needs."""
        if self.settings is None:
            raise SpecError(
                f"{self.cluster.name}: {target} needs a TPU slice with a launch section, as tpu_configs/v5p-64.yaml has"
            )
        return self.settings


def load_slice(text: str) -> Slice:
    """Read a slice description (tpu_configs/NAME.yaml), or a GPU cluster by name or file."""
    cluster = load_cluster(text)
    if cluster.chip.kind == "cpu":
        raise SpecError(f"{text}: emulated devices need no launch; run `jaxscale measure` or `sweep` here")
    if cluster.chip.kind == "gpu":
        return Slice(cluster=cluster, settings=None)
    if not text.lower().endswith((".yaml", ".yml")):
        raise SpecError(f"{text}: a TPU slice is launched from its file, such as tpu_configs/{text}.yaml")
    return Slice(cluster=cluster, settings=load_launch(text))
