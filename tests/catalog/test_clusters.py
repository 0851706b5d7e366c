"""Cluster names: what they mean, which exist, and what the errors say about those that do not."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscale.catalog import cluster_names, load_cluster
from jaxscale.catalog.slices import GENERATIONS, check_topology, sizes_of, topology_of, wraps
from jaxscale.errors import CatalogError, JaxscaleError, SpecError
from jaxscale.types import Cluster

# name: (chips, topology, wraparound). Google Cloud's page of each generation (2025-10) and MaxText's table of what its
# compile-only mode knows (accelerator_to_spec_map.py, 2024); tpu7x from Google's xpk (2025).
SLICES = {
    "v2-8": (4, (2, 2), (False, False)),
    "v2-512": (256, (16, 16), (True, True)),
    "v3-32": (16, (4, 4), (False, False)),
    "v3-1024": (512, (16, 32), (False, True)),
    "v3-2048": (1024, (32, 32), (True, True)),
    "v4-8": (4, (2, 2, 1), (False, False, False)),
    "v4-64": (32, (2, 4, 4), (False, False, False)),
    "v4-128": (64, (4, 4, 4), (True, True, True)),
    "v4-384": (192, (4, 4, 12), (True, True, True)),
    "v4-1536": (768, (8, 8, 12), (True, True, True)),
    "v4-4096": (2048, (8, 16, 16), (True, True, True)),
    "v5e-16": (16, (4, 4), (False, False)),
    "v5e-128": (128, (8, 16), (False, True)),
    "v5litepod-256": (256, (16, 16), (True, True)),
    "v5p-8": (4, (2, 2, 1), (False, False, False)),
    "v5p-16": (8, (2, 2, 2), (False, False, False)),
    "v5p-32": (16, (2, 2, 4), (False, False, False)),
    "v5p-64": (32, (2, 4, 4), (False, False, False)),
    "v5p-128": (64, (4, 4, 4), (True, True, True)),
    "v5p-640": (320, (4, 4, 20), (True, True, True)),
    "v5p-1152": (576, (4, 12, 12), (True, True, True)),
    "v5p-2304": (1152, (8, 12, 12), (True, True, True)),
    "v5p-4608": (2304, (12, 12, 16), (True, True, True)),
    "v5p-6144": (3072, (12, 16, 16), (True, True, True)),
    "v5p-8960": (4480, (8, 20, 28), (True, True, True)),
    "v5p-12288": (6144, (16, 16, 24), (True, True, True)),
    "v5p-17920": (8960, (16, 20, 28), (True, True, True)),
    "v6e-8": (8, (2, 4), (False, False)),
    "v6e-256": (256, (16, 16), (True, True)),
    "tpu7x-8": (4, (2, 2, 1), (False, False, False)),
    "tpu7x-128": (64, (4, 4, 4), (True, True, True)),
    "v7x-256": (128, (4, 4, 8), (True, True, True)),
}


@pytest.mark.parametrize("name", SLICES)
def test_slice(name: str) -> None:
    cluster = load_cluster(name)
    (tier,) = cluster.tiers
    assert (cluster.num_chips, tier.shape, tier.wrap) == SLICES[name]
    assert cluster.aot_topology == f"{cluster.name.partition('-')[0]}:{'x'.join(map(str, tier.shape))}"
    assert f"{cluster.num_chips} chips" in cluster.note


@pytest.mark.parametrize(
    ("name", "hosts"),
    [("v5p-64", 8), ("v4-8", 1), ("v5e-1", 1), ("v5e-8", 1), ("v5e-16", 4), ("v6e-256", 64), ("v5p-2", 1)],
)
def test_hosts(name: str, hosts: int) -> None:
    cluster = load_cluster(name)
    assert cluster.num_chips // cluster.chips_per_host == hosts


def test_devices_are_what_jax_counts() -> None:
    assert load_cluster("v5p-64").num_devices == 32
    assert load_cluster("v4-64").num_devices == 32
    assert load_cluster("v3-32").num_devices == 32
    assert load_cluster("tpu7x-128").num_devices == 128
    assert load_cluster("mi250x:4").num_devices == 8


def test_topology_by_hand() -> None:
    assert load_cluster("v5p:4x4x8") == load_cluster("v5p-256") == load_cluster("v5p:128")
    assert load_cluster("v5p:8x4x4") == load_cluster("v5p-256")
    long = load_cluster("v5p:4x4x16")
    assert (long.name, long.num_chips, long.aot_topology) == ("v5p:4x4x16", 256, "v5p:4x4x16")
    assert load_cluster("V5P-64 ") == load_cluster("v5p-64")


def test_slices_over_the_data_centre_network() -> None:
    cluster = load_cluster("2xv5p-256")
    ici, dcn = cluster.tiers
    assert (cluster.num_chips, cluster.num_slices, ici.shape) == (256, 2, (4, 4, 8))
    assert (dcn.kind, dcn.shape, dcn.bytes_per_s) == ("switch", (2,), 6.25e9)  # 50 Gbit/s a chip
    assert load_cluster("1xv5p-256").num_slices == 1


@pytest.mark.parametrize(
    ("name", "tiers", "per_host"),
    [
        ("h100-sxm:64", [("nvlink", 8), ("ib", 8)], 8),
        ("h100-sxm:8", [("nvlink", 8)], 8),
        ("h100-sxm:2", [("nvlink", 2)], 2),
        ("h100-sxm", [("nvlink", 8)], 8),
        ("a100-sxm-80gb:8x16", [("nvlink", 8), ("ib", 16)], 8),
        ("a100-sxm-40gb:4x16", [("nvlink", 4), ("ib", 16)], 4),
        ("gb200:72", [("nvlink", 72)], 4),
        ("gb200:144", [("nvlink", 72), ("ib", 2)], 4),
        ("mi250x:16", [("infinity_fabric", 4), ("slingshot", 4)], 4),
        ("h100-pcie:16", [("pcie", 8), ("ib", 2)], 8),
        ("cpu:8", [("host", 8)], 8),
        ("cpu:64", [("host", 64)], 64),
    ],
)
def test_groups(name: str, tiers: list, per_host: int) -> None:
    cluster = load_cluster(name)
    assert [(tier.name, tier.size) for tier in cluster.tiers] == tiers
    assert cluster.chips_per_host == per_host
    assert cluster.note.startswith(cluster.name)


@pytest.mark.parametrize(
    ("name", "num_chips", "same_as"),
    [
        ("v5p-64", 64, "v5p-128"),
        ("2xv5p-64", 128, "2xv5p-128"),
        ("h100-sxm:64", 128, "h100-sxm:128"),
        ("a100-sxm-80gb:8x16", 64, "a100-sxm-80gb:8x8"),
        ("cpu:8", 4, "cpu:4"),
        ("h100-sxm", 512, "h100-sxm:512"),
    ],
)
def test_resized(name: str, num_chips: int, same_as: str) -> None:
    assert load_cluster(name, num_chips=num_chips) == load_cluster(same_as)


BAD_NAMES = [
    ("v5p-65", "no v5p slice has 65 TensorCores.*nearby sizes: v5p-32, v5p-64, v5p-128, v5p-256"),
    ("v5p-63", "nearby sizes"),
    ("v5e-24", "no v5e slice has 24 chips; nearby sizes: v5e-8, v5e-16, v5e-32, v5e-64"),
    ("v5p-9999999", "nearby sizes: .*v5p-17920"),
    ("v5p-99999999", "unknown"),
    ("v5e:3x3", "no such slice; known topologies: 1x1, 2x2, 2x4"),
    ("v5p:4x4x6", "every dim a multiple of 4.*Did you mean 4x4x"),
    ("v5p:4x4", "no such slice"),
    ("v5p", "a TPU slice is named by size or topology, such as v5p-128 or v5p:4x4x4"),
    ("v5q-64", "unknown.*Did you mean"),
    ("h100:64", "Did you mean .*h100-sxm:64"),
    ("h100-sxm:12", "12 chips do not fill nodes of 8; nearby sizes: h100-sxm:8, h100-sxm:16, or name the node: .*6x2"),
    ("h100-sxm:0", "sizes must be between 1"),
    ("h100-sxm:8x0", "sizes must be between 1"),
    ("h100-sxm:99999999", "sizes must be between 1"),
    ("0xv5p-64", "0 slices must be between 1 and 4096"),
    ("2xh100-sxm:8", "only TPU slices are joined"),
    ("cpu:-1", "unknown"),
    ("", "unknown"),
]


@pytest.mark.parametrize(("name", "message"), BAD_NAMES)
def test_bad_name(name: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        load_cluster(name)


@pytest.mark.parametrize("num_chips", [0, -8, 33, 2**40])
def test_bad_size(num_chips: int) -> None:
    for name in ("v5p-64", "h100-sxm:64", "a100-sxm-80gb:8x16", "2xv5p-64"):
        with pytest.raises(CatalogError):
            load_cluster(name, num_chips=num_chips)


@pytest.mark.parametrize("name", cluster_names())
def test_every_listed_name_loads_as_itself(name: str) -> None:
    cluster = load_cluster(name)
    assert cluster.name == name
    assert cluster.num_chips % cluster.chips_per_host == 0


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    st.one_of(st.text(max_size=14), st.from_regex(r"[0-9]?x?(v5p|v5e|h100-sxm|cpu)[-:][0-9x]{0,12}", fullmatch=True))
)
def test_any_text_is_a_cluster_or_a_clear_error(text: str) -> None:
    try:
        made: object = load_cluster(text)
    except JaxscaleError as error:
        made = str(error)
    assert isinstance(made, Cluster | str)


@pytest.mark.parametrize("generation", GENERATIONS.values(), ids=lambda g: g.prefix)
def test_laws_of_slices(generation) -> None:
    for chips, shape in sizes_of(generation).items():
        assert topology_of(generation, chips) == shape == check_topology(generation, shape[::-1])
        if len(generation.pod) == 3 and any(wraps(generation, shape)):
            assert all(dim % 4 == 0 for dim in shape)


MY_CLUSTER = """
name: mine
chip: h100-sxm
chips_per_host: 8
dollars_per_chip_hour: 2.5 $/h
tiers:
  - {name: nvlink, kind: switch, shape: 8, bytes_per_s: 450 GB/s, latency_s: 2 us}
  - {name: ib, kind: switch, shape: 16, bytes_per_s: 400 Gbit/s, latency_s: 4 us}
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_own_cluster(tmp_path: Path) -> None:
    cluster = load_cluster(written(tmp_path, MY_CLUSTER))
    assert (cluster.num_chips, cluster.dollars_per_chip_hour, cluster.tiers[1].bytes_per_s) == (128, 2.5, 50e9)
    assert load_cluster(written(tmp_path, MY_CLUSTER), num_chips=64).num_chips == 64


def test_own_chip(tmp_path: Path) -> None:
    text = """
name: mine
chip:
  name: a-chip
  kind: gpu
  peak_flops_per_s: {bf16: 400 TFLOP/s}
  vector_flops_per_s: 30 TFLOP/s
  hbm_bytes: 64 GiB
  usable_hbm_bytes: 62 GiB
  hbm_bytes_per_s: 2 TB/s
  host_bytes_per_s: 30 GB/s
  clock_hz: 1.5 GHz
tiers: [{name: bus, kind: switch, shape: 4, bytes_per_s: 30 GB/s, latency_s: 5 us}]
"""
    assert load_cluster(written(tmp_path, text)).chip.clock_hz == 1.5e9
    with pytest.raises(SpecError, match="hbm_bytes_per_s='2 TB' is not a quantity in bytes/s"):
        load_cluster(written(tmp_path, text.replace("2 TB/s", "2 TB")))
    with pytest.raises(SpecError, match="chip: hbm_bytes missing"):
        load_cluster(written(tmp_path, text.replace("  hbm_bytes: 64 GiB\n", "")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: mine", "nmae: mine", "name missing"),
        ("chips_per_host: 8", "chips_per_hots: 8", "'chips_per_hots' is unknown.*Did you mean chips_per_host"),
        ("chips_per_host: 8", "chips_per_host: 3", "fill hosts of 3"),
        ("chips_per_host: 8", "num_slices: 3", "num_slices=3 must be the size of the last tier, 16"),
        ("chip: h100-sxm", "chip: h100-sxn", "Did you mean h100-sxm"),
        ("2.5 $/h", "2.5", "dollars_per_chip_hour=2.5 has no unit"),
        ("shape: 16", "shape: 4x4", "a switch has one size"),
        ("shape: 16", "shape: 16x", "must look like 2x4x4"),
        ("shape: 16", "shape: 0", "shape=0 must be between 1"),
        ("shape: 16", "shape: 99999999", "must be at most"),
        ("kind: switch, shape: 16", "kind: torus, shape: 4x4", "needs one value for each dim"),
    ],
)
def test_own_cluster_with_a_fault(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(JaxscaleError, match=message):
        load_cluster(written(tmp_path, MY_CLUSTER.replace(old, new)))


def test_a_torus_from_a_file_keeps_its_shape(tmp_path: Path) -> None:
    text = "name: t\nchip: v5p\nchips_per_host: 4\ntiers: [{name: ici, kind: torus, shape: 4x4x8, wrap: true, "
    path = written(tmp_path, text + "bytes_per_s: 90 GB/s, latency_s: 1 us}]")
    assert load_cluster(path).tiers == load_cluster("v5p-256").tiers
    with pytest.raises(CatalogError, match="cannot reshape a torus"):
        load_cluster(path, num_chips=64)


def test_price_follows_the_chip_unless_said() -> None:
    cluster = load_cluster("v5p-64")
    assert cluster.dollars_per_chip_hour == cluster.chip.dollars_per_hour == 4.2
    assert dataclasses.replace(cluster, dollars_per_chip_hour=2.0).chip.dollars_per_hour == 4.2
