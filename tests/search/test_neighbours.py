"""Single changes, the nearest legal layout, and what makes a search feasible."""

import dataclasses

import pytest

from jaxscale.cost import estimate
from jaxscale.errors import CatalogError
from jaxscale.search import NO_LIMITS, nearest_legal, parse_limits, remedies, search, single_changes
from jaxscale.types import AXES, Cluster, Layout
from jaxscale.types.legality import check_layout

from .examples import DENSE, SPARSE, WORKLOAD, cluster

START = Layout(fsdp=2, context=2, tensor=2, remat="full")


def test_changes_are_legal_priced_and_in_order() -> None:
    machine = cluster()
    changes = single_changes(SPARSE, WORKLOAD, machine, START)
    assert {change.kind for change in changes} >= {"from fsdp", "from tensor", "remat", "sharding", "microbatch"}
    for change in changes:
        check_layout(SPARSE, WORKLOAD, change.estimate.layout, machine.num_devices)
        alone = estimate(SPARSE, WORKLOAD, machine, change.estimate.layout)
        assert change.estimate.step_time_s == pytest.approx(alone.step_time_s, rel=1e-12)
    times = [change.estimate.step_time_s for change in changes]
    assert times == sorted(times)


def test_each_change_is_one_decision() -> None:
    for change in single_changes(DENSE, WORKLOAD, cluster(), START):
        layout = change.estimate.layout
        changed = {f.name for f in dataclasses.fields(Layout) if getattr(layout, f.name) != getattr(START, f.name)}
        degrees = changed & set(AXES)
        assert changed
        assert len(degrees) in (0, 2)
        if degrees:
            assert changed - degrees <= {"sequence_parallel", "schedule", "virtual_stages"}


def test_the_best_layout_has_no_better_neighbour() -> None:
    machine = cluster()
    best = search(DENSE, WORKLOAD, machine, headroom=0.0, top=1).ranked[0]
    for change in single_changes(DENSE, WORKLOAD, machine, best.layout):
        assert change.estimate.step_time_s >= best.step_time_s * (1 - 1e-12) or not change.estimate.fits


def test_nearest_legal_layout() -> None:
    found = nearest_legal(DENSE, WORKLOAD, cluster(), Layout(fsdp=2, tensor=4, remat="dots"))
    assert found
    for e in found:
        check_layout(DENSE, WORKLOAD, e.layout, 8)
        assert e.layout.remat == "dots"
    assert found[0].layout.tensor == 2  # 4 does not divide the two key-value heads


def test_remedies_are_computed() -> None:
    limits = parse_limits("offload_optimizer=false")
    lightest = search(DENSE, WORKLOAD, cluster(), limits=limits, objective="memory", top=1, headroom=0.0).ranked[0]
    memory_bytes = 0.99 * lightest.memory_bytes

    def resized(num_chips: int) -> Cluster:
        return cluster(f"h100-sxm:{num_chips}", memory_bytes)

    result = search(DENSE, WORKLOAD, resized(8), limits=limits, headroom=0.0)
    assert not result.ranked
    found = {remedy.what: remedy.estimate for remedy in remedies(result, limits, resized)}
    assert found.keys() == {"16 chips (h100-sxm:16)", "no limit on offload_optimizer"}
    for e in found.values():
        assert e.memory_bytes <= memory_bytes
    assert found["16 chips (h100-sxm:16)"].layout.num_devices == 16
    assert found["no limit on offload_optimizer"].layout.offload_optimizer


def test_no_remedy_where_none_helps() -> None:
    tiny = cluster(memory_bytes=1e6)

    def none(num_chips: int) -> Cluster:
        raise CatalogError(f"no {num_chips}")

    assert remedies(search(DENSE, WORKLOAD, tiny), NO_LIMITS, none) == ()
