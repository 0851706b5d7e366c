"""Which recommendations of Efficient Parallelization Layouts (arXiv 2311.05610, section 5) the model finds by itself.

    python experiments/published/layout_advice.py

LLaMA 13B, 30B and 65B at 2k tokens on 64 A100s, vocabulary 128k, 2048 sequences a step, every layout of tensor x
pipeline x microbatch with and without recompute. Nothing of the paper's advice is put in: each line compares the best
layouts that satisfy a recommendation with the best that do not.
"""

import itertools

from jaxscale.calibrate import Software, calibration_for
from jaxscale.catalog import load_cluster
from jaxscale.cost import estimate_batch, problem
from jaxscale.types import Layout, LayoutBatch, ModelShape, Workload

GPUS, SEQ_LEN, BATCH = 64, 2048, 2048
SHAPES = {"13B": (40, 5120, 40, 13824), "30B": (60, 6656, 52, 17920), "65B": (80, 8192, 64, 22016)}


def llama(name: str) -> ModelShape:
    layers, width, heads, d_ff = SHAPES[name]
    return ModelShape(
        name=name, num_layers=layers, d_model=width, num_heads=heads, num_kv_heads=heads, head_dim=width // heads,
        d_ff=d_ff, vocab_size=128000,
    )  # fmt: skip


def layouts(shape: ModelShape) -> list[Layout]:
    made = []
    for tensor, pipeline, micro, remat, split in itertools.product(
        (1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8), ("none", "full"), (False, True)
    ):
        data = GPUS // (tensor * pipeline)
        if shape.num_heads % tensor or shape.num_layers % pipeline or (split and tensor == 1) or BATCH % (data * micro):
            continue
        made.append(
            Layout(
                fsdp=data, tensor=tensor, pipeline=pipeline, microbatch_size=micro, remat=remat,
                sequence_parallel=split, params_shard="none", grads_shard="none", optimizer_shard="fsdp",
            )
        )  # fmt: skip
    return made


def price(shape: ModelShape, *, fused_norm: bool = True, kernel: str = "flash2") -> list[tuple[float, Layout]]:
    """Layouts that fit, fastest first."""
    software = Software(stack="megatron_aa", attention_kernel=kernel, fused_norm=fused_norm, fused_softmax=True)
    stack = calibration_for("megatron_aa", "a100").stack_for(software)
    p = problem(shape, Workload(seq_len=SEQ_LEN, global_batch_size=BATCH), load_cluster("a100-sxm-80gb:8x8"), stack)
    rows = layouts(shape)
    batch = estimate_batch(p, LayoutBatch.from_layouts(rows), bounds=False)
    fits = batch.fits(p.device.usable_hbm_bytes)
    priced = [(float(s), layout) for s, layout, ok in zip(batch.step_time_s, rows, fits, strict=True) if ok]
    return sorted(priced, key=lambda row: row[0])


def best(rows: list, keep) -> tuple[float, Layout] | None:
    return next((row for row in rows if keep(row[1])), None)


def line(advice: str, follows, breaks) -> None:
    if follows is None or breaks is None:
        print(f"   {advice:52s} no layout to compare with fits")
        return
    gain = breaks[0] / follows[0] - 1.0
    print(f"   {advice:52s} {'found' if gain > 0 else 'NOT found':9s} {100 * gain:+6.1f}%")


def main() -> None:
    for name in SHAPES:
        shape = llama(name)
        rows = price(shape)
        print(f"\n{name} on {GPUS} A100s: best is {rows[0][1]}")
        line(
            "microbatch of one sequence",
            best(rows, lambda x: x.microbatch_size == 1),
            best(rows, lambda x: x.microbatch_size > 1),
        )
        line(
            "no activation recompute", best(rows, lambda x: x.remat == "none"), best(rows, lambda x: x.remat == "full")
        )
        line(
            "pipeline before tensor parallelism",
            best(rows, lambda x: x.pipeline >= x.tensor),
            best(rows, lambda x: x.pipeline < x.tensor),
        )
        line("FlashAttention-2 over the fused kernel", rows[0], price(shape, kernel="naive")[0])
        line("fused RMSNorm kernel", rows[0], price(shape, fused_norm=False)[0])
        line(
            "sequence parallelism",
            best(rows, lambda x: x.sequence_parallel),
            best(rows, lambda x: not x.sequence_parallel),
        )


if __name__ == "__main__":
    main()
