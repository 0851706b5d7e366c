"""Clusters as compilers know them: which compiler, and the devices described to it."""

from jaxscale.aot.targets.choice import KNOWN_TOPOLOGIES, MAX_EMULATED_DEVICES, Target, target_of, unknown_topology

__all__ = ["KNOWN_TOPOLOGIES", "MAX_EMULATED_DEVICES", "Target", "target_of", "unknown_topology"]
