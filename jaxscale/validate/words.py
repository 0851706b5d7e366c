"""What tables of runs say in words rather than in columns: networks, sharding, pipeline schedules."""

from collections.abc import Mapping
from typing import Any

# Gbit/s a chip between nodes, by the name of the transport; the first match wins. Google Cloud, "GPU machine types" and
# "GPU network bandwidth", 2025: a3-megagpu-8g has eight 200 Gbit/s interfaces for its eight GPUs, a3-highgpu-8g four.
NETWORKS: tuple[tuple[str, float], ...] = (("gpudirect-tcpxo", 200.0), ("gpudirect-tcpx", 100.0))


def network_named(row: Mapping[str, Any]) -> float | None:
    """Gbit/s a chip between nodes of the network that a row names, if it names one.

    >>> network_named({"notes": "A3 network (GPUDirect-TCPX), bandwidth not stated"})
    100.0
    """
    said = _said(row)
    return next((gigabits for name, gigabits in NETWORKS if name in said), None)


def hybrid_sharding(row: Mapping[str, Any]) -> bool:
    """Whether weights are sharded inside a node and replicated between nodes."""
    return "hybrid sharding" in _said(row)


def interleaved(row: Mapping[str, Any]) -> bool:
    """Whether the variant names an interleaved pipeline schedule."""
    return "interleaved" in str(row.get("variant", "")).lower()


def _said(row: Mapping[str, Any]) -> str:
    return f"{row.get('variant', '')} {row.get('notes', '')}".lower()
