"""The whole chain, run: a twin trains as one device does, and its program holds the collectives that were predicted."""

from collections import Counter

import pytest

from jaxscale.catalog import load_cluster, load_model
from jaxscale.cost import estimate
from jaxscale.errors import MeasurementError
from jaxscale.measure import run_twin, shrink
from jaxscale.types import Collective, Workload, parse_layout


def payloads(collectives: tuple[Collective, ...]) -> Counter:
    """Bytes handed to each kind of collective over each group of axes."""
    totals: Counter = Counter()
    for c in collectives:
        totals[c.kind, tuple(sorted(c.axes))] += round(c.count * c.bytes_each)
    return totals


CASES = [
    "llama3-8b data=2,fsdp=16,tensor=4,sp=true,microbatch=1,remat=dots",
    pytest.param("llama3-8b fsdp=8,tensor=4,microbatch=1,remat=full", marks=pytest.mark.slow),
    pytest.param("llama3-8b data=2,fsdp=4,tensor=4,zero=2,microbatch=1,remat=attention", marks=pytest.mark.slow),
    pytest.param("llama3-8b data=4,fsdp=4,zero=1,microbatch=1,remat=none", marks=pytest.mark.slow),
    pytest.param("llama3-8b fsdp=8,context=4,microbatch=1,remat=flash", marks=pytest.mark.slow),
    pytest.param("llama3-8b fsdp=8,context=4,microbatch=1,remat=full", marks=pytest.mark.slow),
    pytest.param("gpt2-124m data=2,fsdp=4,tensor=4,sp=true,microbatch=1,remat=full", marks=pytest.mark.slow),
    pytest.param("olmo2-7b fsdp=8,tensor=4,microbatch=1,remat=full", marks=pytest.mark.slow),
    pytest.param("mixtral-8x7b fsdp=8,expert=4,microbatch=1,remat=full", marks=pytest.mark.slow),
    pytest.param("deepseek-v2-lite fsdp=4,tensor=4,expert=2,sp=true,microbatch=1,remat=dots", marks=pytest.mark.slow),
    pytest.param("llama3-8b fsdp=8,pipeline=4,microbatch=1,schedule=1f1b", marks=pytest.mark.slow),
    pytest.param("llama3-8b fsdp=8,pipeline=4,zero=1,microbatch=1,schedule=gpipe", marks=pytest.mark.slow),
    pytest.param("llama3-8b fsdp=8,tensor=2,microbatch=1,schedule=layered,remat=dots", marks=pytest.mark.slow),
    pytest.param("mixtral-8x7b fsdp=8,expert=2,zero=2,microbatch=1,schedule=layered", marks=pytest.mark.slow),
    pytest.param("llama3-8b fsdp=8,pipeline=4,virtual_stages=2,microbatch=1,schedule=layered", marks=pytest.mark.slow),
    pytest.param("gemma2-2b fsdp=8,pipeline=2,microbatch=1,schedule=layered,remat=none", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("case", CASES)
def test_twin_agrees_and_moves_what_was_predicted(case: str) -> None:
    model, layout = case.split()
    twin = shrink(load_model(model), Workload(seq_len=8192, global_batch_size=128), parse_layout(layout))
    result = run_twin(twin)
    assert result.agrees, f"loss off by {result.loss_error:.1e}, gradients by {result.gradient_error:.1e}"
    assert result.losses[-1] < result.losses[0]
    predicted = estimate(twin.shape, twin.workload, load_cluster(f"cpu:{twin.layout.num_devices}"), twin.layout)
    assert payloads(result.collectives) == payloads(predicted.collectives)


def test_a_twin_that_takes_too_long_is_stopped() -> None:
    twin = shrink(load_model("llama3-8b"), Workload(seq_len=8192, global_batch_size=128), parse_layout("fsdp=8"))
    with pytest.raises(MeasurementError, match="no result within"):
        run_twin(twin, timeout_s=0.01)
