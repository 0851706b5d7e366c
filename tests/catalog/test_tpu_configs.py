"""The slices of tpu_configs/: each is the catalogue's own, and the TPU compiler knows every name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxscale.catalog import cluster_names, load_cluster, load_launch
from jaxscale.errors import SpecError

FOLDER = Path(__file__).parents[2] / "tpu_configs"
FILES = sorted(FOLDER.glob("*.yaml"))
COMMON = "v4-64 v5e-16 v5e-64 v5e-256 v5p-64 v5p-256 v6e-256 tpu7x-128 2xv5p-256"


def test_the_common_slices_are_there() -> None:
    assert set(COMMON.split()) <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_equals_catalogue(path: Path) -> None:
    assert load_cluster(str(path)) == load_cluster(path.stem)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_launch_agrees_with_cluster(path: Path) -> None:
    cluster, launch = load_cluster(str(path)), load_launch(str(path))
    single = load_cluster(launch.accelerator_type)
    assert single.num_chips * cluster.num_slices == cluster.num_chips
    assert launch.hosts * cluster.chips_per_host == cluster.num_chips
    assert launch.runtime_version
    if launch.machine_type:
        assert launch.machine_type.endswith(f"-{cluster.chips_per_host}t")


def test_launch_faults(tmp_path: Path) -> None:
    text = (FOLDER / "v5p-64.yaml").read_text()
    path = tmp_path / "mine.yaml"
    for old, new, message in (
        ("hosts: 8", "hosts: 9", "hosts=9, but 32 chips are 8 hosts"),
        ("  topology: 2x4x4", "  topology: 4x4x4", "topology='4x4x4' is not that of"),
        ("zone:", "zoen:", "'zoen' is unknown.*Did you mean zone"),
        ("launch:", "lunch:", "'lunch' is unknown"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(SpecError, match=message):
            load_launch(str(path))
    path.write_text(text[: text.index("launch:")])
    with pytest.raises(SpecError, match="section launch is missing"):
        load_launch(str(path))


PROBE = """
import sys
from jax.experimental import topologies
for line in sys.stdin.read().split():
    options = {"chip_config_name": "megacore"} if line.startswith("v4") else {}
    described = topologies.get_topology_desc(topology_name=line, platform="tpu", **options)
    print(line, len(described.devices), len({d.process_index for d in described.devices}))
"""


@pytest.mark.tpu_backend
def test_the_compiler_knows_every_slice() -> None:
    pytest.importorskip("libtpu")
    names = [name for name in cluster_names() if load_cluster(name).aot_topology]
    clusters = {load_cluster(name).aot_topology: load_cluster(name) for name in names}
    environment = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    probe = subprocess.run(
        [sys.executable, "-c", PROBE], input="\n".join(clusters), capture_output=True, text=True, timeout=300,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip
    assert probe.returncode == 0, probe.stderr[-2000:]
    found = {name: (int(devices), int(hosts)) for name, devices, hosts in map(str.split, probe.stdout.splitlines())}
    for topology, cluster in clusters.items():
        hosts = cluster.num_chips // cluster.chips_per_host
        assert found[topology][0] == cluster.num_devices, topology
        # The compiler describes hosts of 4 chips where Cloud TPU offers one host of 8.
        assert found[topology][1] == max(hosts, cluster.num_chips // 4), topology
