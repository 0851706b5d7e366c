"""Which compiler is asked for which cluster, and what it is told of."""

import dataclasses
import importlib
import sys

import pytest

from jaxscale.aot.child import chosen_kernels
from jaxscale.aot.targets import choice as targets
from jaxscale.aot.targets import target_of
from jaxscale.aot.targets.gpu import target_config
from jaxscale.catalog import chip_names, load_chip, load_cluster
from jaxscale.errors import CompileError
from tests.aot import requests


@pytest.fixture
def with_plugin(monkeypatch):
    monkeypatch.setattr(targets, "cuda_plugin", lambda: "xla_cuda12")


def test_every_gpu_of_the_catalogue_is_described_or_refused_by_name():
    described = []
    for name in chip_names():
        chip = load_chip(name)
        if chip.kind != "gpu":
            continue
        try:
            text = target_config(chip)
        except CompileError as error:
            assert name in str(error)  # noqa: PT017
            continue
        described.append(name)
        assert text.count("{") == text.count("}")
        assert f"core_count: {chip.num_cores}\n" in text
        assert f"device_memory_size: {round(chip.hbm_bytes)}\n" in text
    assert {"a100-sxm-80gb", "h100-sxm", "h200", "b200"} <= set(described)


def test_hopper_is_described_with_its_own_features():
    text = target_config(load_chip("h100-sxm"))
    assert "major: 9" in text
    assert "ACCELERATED_FEATURES" in text
    assert "shared_memory_per_core: 233472" in text
    assert "ACCELERATED" not in target_config(load_chip("a100-sxm-80gb"))


def test_gpu_nodes_become_hosts(with_plugin):
    target = target_of(load_cluster("h100-sxm:64"))
    assert (target.backend, target.topology, target.num_devices) == ("gpu", "1x8x8", 64)
    assert target_of(load_cluster("a100-sxm-80gb:4x2")).topology == "1x2x4"


def test_fused_attention_on_gpu_needs_its_library(with_plugin, monkeypatch):
    monkeypatch.setattr(targets, "has_cudnn", lambda: False)
    target = target_of(load_cluster("h100-sxm:8"))
    assert target.attention == "xla"
    assert "cuDNN is not installed" in target.note
    monkeypatch.setattr(targets, "has_cudnn", lambda: True)
    assert target_of(load_cluster("h100-sxm:8")).attention == ""


@pytest.mark.parametrize("folders", [(), ("nvidia",), ("nvidia", "nvidia/cudnn")])
def test_the_library_is_looked_for_without_loading_it(monkeypatch, tmp_path, folders):
    """`nvidia` is a namespace that many wheels share: absent, there without cuDNN, or there with it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "nvidia"]:
        monkeypatch.delitem(sys.modules, name)
    for folder in folders:
        (tmp_path / folder).mkdir()
    cudnn = tmp_path / "nvidia" / "cudnn"
    if cudnn.exists():
        (cudnn / "__init__.py").write_text("raise AssertionError('was loaded')")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    assert targets.has_cudnn() == cudnn.exists()


@pytest.mark.parametrize(
    ("cluster", "topology", "slices", "one_device", "devices"),
    [
        ("v5p-64", "v5p:2x4x4", 1, False, 32),
        ("2xv5p-64", "v5p:2x4x4", 2, False, 64),
        ("v4-128", "v4:4x4x4", 1, True, 64),
        ("tpu7x:4x4x8", "tpu7x:4x4x8", 1, False, 256),
    ],
)
def test_tpu_slices_by_the_compilers_name(monkeypatch, cluster, topology, slices, one_device, devices):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: name == "libtpu")
    target = target_of(load_cluster(cluster))
    assert (target.backend, target.topology, target.num_slices) == ("tpu", topology, slices)
    assert (target.one_device_a_chip, target.num_devices, target.note) == (one_device, devices, "")


def test_the_environment_keeps_a_compiler_off_the_hardware():
    assert target_of(load_cluster("cpu:8")).environment == {"JAX_PLATFORMS": "cpu"}
    described = targets.Target(backend="tpu", num_devices=8).environment
    assert described["ALLOW_MULTIPLE_LIBTPU_LOAD"] == "1"
    assert described["JAX_PLATFORMS"] == "cpu"


def test_another_attention_leaves_the_workloads_other_choices(with_plugin, monkeypatch):
    monkeypatch.setattr(targets, "has_cudnn", lambda: False)
    asked = requests.request()
    asked = dataclasses.replace(
        asked, cluster=load_cluster("h100-sxm:8"), layout=dataclasses.replace(asked.layout, fsdp=8)
    )
    kernels = chosen_kernels(asked)
    assert (kernels.attention, kernels.capacity_factor) == ("xla", asked.workload.capacity_factor)
