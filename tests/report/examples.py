"""One search for all report tests, with a compile check made up for its best layouts."""

import dataclasses
import functools

from jaxscale.catalog import load_cluster, load_model
from jaxscale.report.html import search_report
from jaxscale.search import SearchResult, search, single_changes
from jaxscale.types import Workload
from jaxscale.types.checks import Check, CheckedLayout

WORKLOAD = Workload(seq_len=2048, global_batch_size=32)


@functools.cache
def result(cluster: str = "h100-sxm:8") -> SearchResult:
    """GPT-2 of 774M parameters on one node."""
    return search(load_model("gpt2-774m"), WORKLOAD, load_cluster(cluster), top=3)


@functools.cache
def rows() -> tuple[CheckedLayout, ...]:
    """The ranking: the compiler refuses the first layout and takes the next three."""
    checked = []
    for rank, e in enumerate(result().ranked[:4], start=1):
        passed = rank != 1
        size = e.memory_bytes * (1.02 if passed else 3.0)
        parts = {"arguments": 0.4 * size, "temporaries": 0.6 * size}
        record = dataclasses.replace(e, tier="compiled", memory_bytes=size, memory_parts_bytes=parts)
        verdict = "fits: the compiler needs 1.0 GiB" if passed else "does not fit: the compiler needs <99> GiB"
        check = Check(kind="compile", passed=passed, sentence=verdict, seconds=2.0, estimate=record)
        checked.append(CheckedLayout(rank=rank, predicted=e, checks=(check,)))
    return tuple(checked)


@functools.cache
def report() -> str:
    """The report of that search."""
    found = result()
    changes = single_changes(found.shape, found.workload, found.cluster, rows()[1].predicted.layout)
    return search_report(found, rows(), (found, result("v5e-16")), changes)
