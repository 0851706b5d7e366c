"""Chips: every figure has a source, and the figures agree with the sheets and with one another."""

import re

import pytest

from jaxscale.catalog import chip_names, load_chip
from jaxscale.catalog.chips import CatalogChip, catalog_chip, read_chip
from jaxscale.errors import CatalogError, SpecError

GIB = 2.0**30
EXPECTED = (
    "tpu-v2 tpu-v3 tpu-v4 tpu-v5e tpu-v5p tpu-v6e tpu7x v100-sxm2-16gb v100-sxm2-32gb a100-sxm-40gb a100-sxm-80gb "
    "a100-pcie-40gb a100-pcie-80gb h100-sxm h100-sxm-96gb-hbm2e h100-pcie h200 b200 gb200 mi250x mi300x rtx4090 cpu"
)


@pytest.fixture(params=chip_names())
def entry(request: pytest.FixtureRequest) -> CatalogChip:
    return catalog_chip(request.param)


def test_the_chips_that_people_train_on() -> None:
    assert chip_names() == tuple(EXPECTED.split())


def test_every_figure_has_a_source(entry: CatalogChip) -> None:
    chip = entry.chip
    figures = {"vector_flops_per_s", "hbm_bytes", "usable_hbm_bytes", "hbm_bytes_per_s", "host_bytes_per_s"}
    figures |= {f"peak_flops_per_s.{name}" for name in chip.peak_flops_per_s}
    figures |= {f"{link}.{figure}" for link in ("inner", "outer") for figure in ("bytes_per_s", "latency_s")}
    assert figures <= entry.sources.keys()
    assert all(source in chip.source for source in entry.sources.values())


def test_a_source_is_dated_unless_it_is_derived_or_an_estimate(entry: CatalogChip) -> None:
    derived = ("estimate", "placeholder", "a sixth of", "HBM less", "memory that the driver", "PCIe base")
    for source in entry.sources.values():
        assert re.search(r"20\d\d", source) or source.startswith(derived), source


def test_figures_agree_with_one_another(entry: CatalogChip) -> None:
    chip = entry.chip
    assert 0.85 * chip.hbm_bytes <= chip.usable_hbm_bytes <= chip.hbm_bytes
    assert chip.peak("bf16") >= chip.peak("fp32")
    assert chip.peak("fp8") >= chip.peak("bf16")
    assert chip.hbm_bytes_per_s >= chip.host_bytes_per_s
    assert chip.num_cores % chip.devices_per_chip == 0
    if chip.kind != "cpu":
        assert entry.inner.bytes_per_s > entry.outer.bytes_per_s


# Vendor sheets, typed in again from the sheets: dense bf16 TFLOP/s, HBM GB/s.
SHEETS = {
    "tpu-v4": (275, 1200),
    "tpu-v5e": (197, 819),
    "tpu-v5p": (459, 2765),
    "tpu-v6e": (918, 1638),
    "tpu7x": (2307, 7380),
    "a100-sxm-80gb": (312, 2039),
    "h100-sxm": (989.4, 3352),
    "h200": (989.4, 4800),
    "mi300x": (1307.4, 5325),
}


@pytest.mark.parametrize("name", SHEETS)
def test_sheet(name: str) -> None:
    chip = load_chip(name)
    assert (chip.peak("bf16") / 1e12, chip.hbm_bytes_per_s / 1e9) == SHEETS[name]


# GiB that libtpu says are available to one JAX device when it refuses a program.
COMPILER_LIMITS = {"v2": 7.48, "v3": 15.48, "v4": 30.75, "v5e": 15.75, "v5p": 95.73, "v6e": 31.24, "tpu7x": 94.74}


@pytest.mark.parametrize("name", COMPILER_LIMITS)
def test_usable_memory_is_the_compilers_limit(name: str) -> None:
    chip = load_chip(name)
    assert chip.usable_hbm_bytes == pytest.approx(COMPILER_LIMITS[name] * GIB * chip.devices_per_chip)


def test_names_people_use() -> None:
    assert load_chip("v5p") is load_chip("tpu-v5p")
    assert load_chip("v7x") == load_chip("TPU7x")
    assert load_chip("h100-sxm-80gb") is load_chip("h100-sxm")
    assert load_chip("v100-sxm-32gb").hbm_bytes == 32 * GIB
    with pytest.raises(CatalogError, match=r"'h100sxm' is unknown.*Did you mean h100-sxm"):
        load_chip("h100sxm")


def test_a_figure_without_a_source_is_refused() -> None:
    entry = {"kind": "gpu", "hbm_bytes": "80 GiB"}
    with pytest.raises(SpecError, match=r"hbm_bytes must be \[quantity, source\]"):
        read_chip("x", entry, {"sheet": "a sheet"})
    with pytest.raises(SpecError, match="with a listed source"):
        read_chip("x", {"kind": "gpu", "hbm_bytes": ["80 GiB", "hearsay"]}, {"sheet": "a sheet"})
