"""Our keys against the packages that read them, where those are installed."""

import ast
import dataclasses
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from jaxscale.catalog import load_cluster, load_model
from jaxscale.export import TARGETS
from jaxscale.types import Workload, parse_layout


def export(target: str, tmp_path: Path) -> Path:
    made = TARGETS[target](
        load_model("mixtral-8x7b"), Workload(seq_len=4096, global_batch_size=128), load_cluster("h100-sxm:64"),
        parse_layout("data=2,fsdp=4,expert=4,tensor=2,sp=true,remat=dots"),
    )  # fmt: skip
    path = tmp_path / made.filename
    path.write_text(made.text)
    return path


@pytest.mark.slow
def test_accelerate_loads_it(tmp_path: Path) -> None:
    config_args = pytest.importorskip("accelerate.commands.config.config_args", reason="accelerate is not installed")
    config = config_args.ClusterConfig.from_yaml_file(str(export("accelerate", tmp_path)))
    assert config.num_processes == 64
    assert config.fsdp_config["fsdp_version"] == 2


@pytest.mark.slow
def test_maxtext_knows_every_key(tmp_path: Path) -> None:
    spec = find_spec("maxtext")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("maxtext is not installed (it needs Python 3.12)")
    base = (Path(spec.submodule_search_locations[0]) / "configs" / "base.yml").read_text()
    known = set(re.findall(r"^(\w+):", base, re.MULTILINE)) | {"base_config"}
    assert set(yaml.safe_load(export("maxtext", tmp_path).read_text())) <= known


@pytest.mark.slow
def test_torchtitan_has_every_field(tmp_path: Path) -> None:
    configs = pytest.importorskip("torchtitan.config.configs", reason="torchtitan is not installed")
    sections = {"training": configs.TrainingConfig, "parallelism": configs.ParallelismConfig}
    known = {(name, field.name) for name, kind in sections.items() for field in dataclasses.fields(kind)}
    tree = ast.parse(export("torchtitan", tmp_path).read_text())
    set_here = {
        (node.value.attr, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr in sections
    }
    assert set_here
    assert set_here <= known
