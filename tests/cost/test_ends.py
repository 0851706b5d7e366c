"""Where embedding, head and the optimizer's copies decide the peak: against what libtpu 0.0.52 assigns the step."""

import pytest

from jaxscale.catalog import load_cluster, load_model
from jaxscale.cost import estimate
from jaxscale.types import Workload, parse_layout
from jaxscale.units import GIB

# model, cluster, tokens, layout, microbatches, GiB at the peak: `experiments/agreement/tpu.csv`
COMPILED = (
    # both moments of four of twelve stacked matrices are on their way from the host: 2 GiB are reached
    ("gemma2-9b", "v5p-32", 2048, "fsdp=16,remat=full,offload_optimizer=true", 4, 12.967),
    # of two: matrices of 896 MiB, so that 3.5 GiB are
    ("llama3-8b", "v6e-8", 4096, "fsdp=8,remat=full,offload_optimizer=true", 4, 18.413),
    # the embedding's whole gradient is scattered into a shard
    ("llama3.2-1b", "v5p-16", 2048, "data=2,fsdp=4,remat=full", 2, 6.944),
    # a sequence of 8192 tokens and whole tiles of the vocabulary: the gradient of the logits is written
    ("qwen2.5-7b", "v5p-64", 32768, "fsdp=4,context=2,tensor=4,sp=true,remat=full", 1, 6.514),
    # on v5e never; the head's whole gradient lies beside the logits
    ("qwen2.5-7b", "v5e-64", 32768, "fsdp=16,context=4,remat=full", 1, 7.575),
    # 1536 tokens and a width of 2048 are enough for a written gradient, on v5p
    ("gemma-2b", "v5p-32", 3072, "fsdp=8,context=2,remat=full", 1, 4.538),
    # on v5e the head's gradient lies beside the head and several sequences' logits
    ("gemma-2b", "v5e-16", 3072, "fsdp=16,microbatch_size=2,remat=full", 1, 7.288),
    # a pipeline's ticks sum up gradients of one microbatch too
    ("qwen1.5-moe-a2.7b", "v5p-32", 3072, "fsdp=8,pipeline=2,remat=full", 1, 21.533),
    # the output projection's heads are split to a width of 2, and padded to 128
    ("qwen3-30b-a3b", "v5e-64", 4096, "fsdp=8,expert=8,remat=full", 1, 10.098),
    # TPU7x: the gradient of a tied table waits for the embedding's
    ("qwen3-4b", "tpu7x-32", 2048, "fsdp=32,remat=none", 1, 11.213),
)


@pytest.mark.parametrize(("model", "cluster", "seq_len", "text", "microbatches", "compiled_gib"), COMPILED)
def test_peaks_are_the_compilers(model, cluster, seq_len, text, microbatches, compiled_gib):
    layout = parse_layout(text)
    workload = Workload(seq_len=seq_len, global_batch_size=layout.batch_shards * layout.microbatch_size * microbatches)
    predicted = estimate(load_model(model), workload, load_cluster(cluster), layout).memory_bytes / GIB
    assert predicted == pytest.approx(compiled_gib, rel=0.01)
