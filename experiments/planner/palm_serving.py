"""Latency and utilisation of PaLM 540B on 64 TPU v4, by roofline, against Pope et al. 2022 (arXiv 2211.05102).

python experiments/planner/palm_serving.py
"""

from dataclasses import dataclass, fields, replace

from jaxscale.catalog import load_chip, load_model
from jaxscale.plan.economics.serving import Efficiency, ServingPoint, longest_context, pass_time

ICI_BYTES_PER_S = 270e9  # section 3.1: interconnect bandwidth of a TPU v4 chip
PURE = Efficiency(matmul=1.0, memory=1.0, network=1.0, hop_s=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    what: str
    batch: int
    new_tokens: int
    context: int
    partition: str
    weight_bytes: float
    passes: int  # decode steps in the published time
    published_s: float
    published_mfu: float


# (what, batch, new tokens, context, partitioning, bytes of a weight, passes in the time, seconds, MFU) of Table 2; the
# bf16 decode is 36.9 ms a token, section 4.4.
_TABLE = (
    ("prefill 2048, int8", 1, 2048, 0, "2d", 1.0, 1, 0.29, 0.43),
    ("decode 64, int8", 64, 1, 2048, "2d", 1.0, 64, 1.82, 0.14),
    ("decode 64, bf16", 64, 1, 2048, "2d", 2.0, 64, 64 * 0.0369, 0.11),
    ("prefill 2048, bf16", 512, 2048, 0, "weight_gathered", 2.0, 1, 85.2, 0.76),
    ("decode 64, bf16", 512, 1, 2048, "2d", 2.0, 64, 6.0, 0.33),
)
ROWS = tuple(Row(**dict(zip([f.name for f in fields(Row)], row, strict=True))) for row in _TABLE)


def main() -> None:
    palm = load_model("palm-540b")
    point = ServingPoint(chip=load_chip("tpu-v4"), num_chips=64, network_bytes_per_s=ICI_BYTES_PER_S, torus_axes=3)
    print("| pass | batch | partitioning | roofline s | estimate s | published s | ratio | MFU | published MFU |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        here = replace(point, partition=row.partition, weight_bytes=row.weight_bytes)
        asked = {"batch": row.batch, "new_tokens": row.new_tokens, "context": row.context}
        ideal, time = pass_time(palm, here, efficiency=PURE, **asked), pass_time(palm, here, **asked)
        estimate = row.passes * time.upper_s
        print(
            f"| {row.what} | {row.batch} | {row.partition} | {row.passes * ideal.lower_s:.3g} | {estimate:.3g} "
            f"| {row.published_s:.3g} | {estimate / row.published_s:.2f} | {100 * time.mfu:.0f}% "
            f"| {100 * row.published_mfu:.0f}% |"
        )
    print("\n| attention, batch 128 | longest context | published |\n|---|---|---|")
    multi_head = replace(palm, num_kv_heads=palm.num_heads, head_dim=128)
    for label, shape, sharding, published in (
        ("multi-head", multi_head, "heads", 1320),
        ("multi-query by head", palm, "heads", 660),
        ("multi-query by batch", palm, "batch", 43_000),
    ):
        print(
            f"| {label} | {longest_context(shape, replace(point, cache_sharding=sharding), 128):,.0f} | {published:,} |"
        )


if __name__ == "__main__":
    main()
