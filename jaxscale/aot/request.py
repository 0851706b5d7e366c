"""What is asked of the compiler, and under which key its answer is kept."""

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jaxscale import __version__
from jaxscale.aot.targets import Target, target_of
from jaxscale.types import Cluster, Layout, ModelShape, Workload
from jaxscale.types.codec import encode

# Packages of jaxscale whose code makes the program or reads it: a change there makes kept answers stale.
_PROGRAM_SOURCES = ("zoo", "runtime", "aot", "types", "schedule")
_COMPILER_PACKAGES = ("jax", "jaxlib", "flax", "optax", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """One training step to compile for one cluster.

    `flags` are compiler options by name, as XLA and libtpu know them.
    """

    shape: ModelShape
    workload: Workload
    layout: Layout
    cluster: Cluster
    flags: tuple[tuple[str, str], ...] = ()
    dump_dir: str = ""  # where to leave the optimized HLO; not part of the key
    quick: bool = False  # for TPUs: stop once memory is assigned; no code size and no cycle estimates then

    @property
    def target(self) -> Target:
        """The compiler and the devices that the program is for."""
        return target_of(self.cluster)

    @property
    def stops_early(self) -> bool:
        """Whether the compiler is left before it makes code; GPU and CPU compilers are quick enough as they are."""
        return self.quick and self.target.backend == "tpu"

    def key(self) -> str:
        """A digest of everything that the answer depends on."""
        parts = {
            "request": encode(self) | {"dump_dir": "", "quick": self.stops_early},
            "target": encode(self.target),
            "source": source_digest(),
            "versions": versions(),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def source_digest() -> str:
    """A digest of the code that makes and reads the program."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for package in _PROGRAM_SOURCES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of what takes part in a compile, of those that are installed."""
    found = {"jaxscale": __version__}
    for package in _COMPILER_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
