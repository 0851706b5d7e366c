"""Our step against a `torch.compile`d transformers step of the same shape, on the GPU of this machine, in one run.

    python experiments/gpu_step/run.py --cluster h100-sxm:1 --out experiments/gpu_step
    python experiments/gpu_step/run.py --smoke --out /tmp/gpu_step       # tiny, on the CPU

Every way of running a case is a process of its own. Each side's figure is the fastest of its ways that ran; both MFUs
are the same model FLOPs over the same peak (`jaxscale.cost.metrics`: attention counted in full, nothing recomputed).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cases import Case, cases

from jaxscale.catalog import load_cluster, load_model
from jaxscale.cost import count_parameters, metrics, problem
from jaxscale.measure import measure
from jaxscale.types import Cluster, ModelShape, Workload, parse_layout
from jaxscale.types.measurement import MeasureRequest

HERE = Path(__file__).parent
MFU_GOAL = 0.55
TORCH_TIMEOUT_S = 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One way of running one case: who, how, and what came out."""

    case: str
    side: str  # jaxscale or torch
    way: str
    status: str
    message: str = ""
    step_s: float | None = None  # median
    mfu: float | None = None
    tokens_per_s: float | None = None
    peak_memory_bytes: float = 0.0
    first_loss: float | None = None
    detail: dict[str, Any] | None = None


def shape_of(case: Case) -> ModelShape:
    """The model as jaxscale reads it from the configuration that transformers builds from."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(case.config))
        return load_model(folder)


def ours(case: Case, cluster: Cluster) -> Iterator[Outcome]:
    """Our step, every remat policy by every microbatch size."""
    shape, workload = shape_of(case), workload_of(case)
    for remat in case.remats:
        for size in fitting(case):
            request = MeasureRequest(
                shape=shape, workload=workload, layout=parse_layout(f"remat={remat},microbatch={size}"),
                cluster=cluster, num_steps=case.steps, num_warmup_steps=case.warmup,
            )  # fmt: skip
            found = measure(request)
            yield outcome(
                case, cluster, "jaxscale", f"remat {remat}, microbatch {size}", status=found.status,
                message=found.message, step_s=found.median_s, peak_memory_bytes=found.peak_memory_bytes,
                losses=found.losses, detail={"device": found.device_kind},
            )  # fmt: skip
            if found.status == "out_of_memory":
                break  # a larger microbatch needs more


def torchs(case: Case, cluster: Cluster) -> Iterator[Outcome]:
    """The step of PyTorch, with and without recomputation, every microbatch size."""
    expected = count_parameters(shape_of(case)).total
    for remat in ("none", "full"):
        for size in fitting(case):
            request = asdict(case) | {"remat": remat, "microbatch": size}
            found = run_torch(request)
            if found["status"] == "ok" and found["num_parameters"] != expected:
                raise SystemExit(f"{case.name}: transformers has {found['num_parameters']} parameters, not {expected}")
            times = found.get("step_times_s")
            yield outcome(
                case, cluster, "torch", f"remat {remat}, microbatch {size}", status=found["status"],
                message=found.get("message", ""), step_s=statistics.median(times) if times else None,
                peak_memory_bytes=found.get("peak_memory_bytes", 0), losses=found.get("losses", ()),
                detail={key: found[key] for key in ("device", "versions") if key in found},
            )  # fmt: skip
            if found["status"] == "out_of_memory":
                break


def run_torch(request: dict[str, Any]) -> dict[str, Any]:
    """One measurement of PyTorch in a process of its own."""
    child = subprocess.run(
        [sys.executable, str(HERE / "torch_step.py")], input=json.dumps(request), capture_output=True, text=True,
        timeout=TORCH_TIMEOUT_S, check=False, env=os.environ | {"PYTORCH_ALLOC_CONF": "expandable_segments:True"},
    )  # fmt: skip
    if child.returncode:
        return {"status": "crash", "message": "\n".join(child.stderr.splitlines()[-3:])}
    return json.loads(child.stdout.splitlines()[-1])


def fitting(case: Case) -> list[int]:
    return [size for size in case.microbatches if case.global_batch % size == 0]


def workload_of(case: Case) -> Workload:
    """bfloat16 compute, float32 weights and AdamW; dropless where there are experts, as transformers is."""
    return Workload(seq_len=case.seq_len, global_batch_size=case.global_batch, capacity_factor=0.0)


def outcome(
    case: Case, cluster: Cluster, side: str, way: str, *, step_s: float | None, losses: Iterable[float], **rest: Any
) -> Outcome:
    """The record of one measurement, with the figures that follow from its step time."""
    workload = workload_of(case)
    p = problem(shape_of(case), workload, cluster)
    model_flops = metrics.model_flops_per_token(p) * workload.tokens_per_step
    return Outcome(
        case=case.name, side=side, way=way, step_s=step_s,
        mfu=float(metrics.mfu(p, model_flops, step_s)) if step_s else None,
        tokens_per_s=workload.tokens_per_step / step_s if step_s else None,
        first_loss=next(iter(losses), None), **rest,
    )  # fmt: skip


def table(outcomes: list[Outcome]) -> str:
    """Each case's fastest way on each side, as markdown."""
    lines = ["| case | side | step | tokens/s | MFU | peak memory | fastest way | speed-up |", "|" + "---|" * 8]
    for case in dict.fromkeys(outcome.case for outcome in outcomes):
        best = {side: fastest(outcomes, case, side) for side in ("jaxscale", "torch")}
        for side, found in best.items():
            if found is None:
                lines.append(f"| {case} | {side} | none ran | | | | | |")
                continue
            other = best["torch"]
            speedup = f"{other.step_s / found.step_s:.2f}x" if side == "jaxscale" and other is not None else ""
            lines.append(
                f"| {case} | {side} | {1e3 * found.step_s:.1f} ms | {found.tokens_per_s:,.0f} | {found.mfu:.1%} | "
                f"{found.peak_memory_bytes / 2**30:.1f} GiB | {found.way} | {speedup} |"
            )
    return "\n".join(lines)


def fastest(outcomes: list[Outcome], case: str, side: str) -> Outcome | None:
    ran = [o for o in outcomes if (o.case, o.side, o.status) == (case, side, "ok")]
    return min(ran, key=lambda found: found.step_s, default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", default="h100-sxm:1", help="one GPU, as `jaxscale clusters` names it")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json and results.md")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--smoke", action="store_true", help="tiny models on the CPU: only that everything runs")
    options = parser.parse_args()
    cluster = load_cluster("cpu:1" if options.smoke else options.cluster)
    options.out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for case in cases(smoke=options.smoke):
        if options.only not in case.name:
            continue
        for side in (ours, torchs):
            for found in side(case, cluster):
                outcomes.append(found)
                print(f"{found.case}, {found.side}, {found.way}: {found.status} {found.step_s or found.message}")
                records = {"cluster": cluster.name, "mfu_goal": MFU_GOAL, "outcomes": [asdict(o) for o in outcomes]}
                (options.out / "results.json").write_text(json.dumps(records, indent=2))
    (options.out / "results.md").write_text(table(outcomes) + "\n")
    print(table(outcomes))


if __name__ == "__main__":
    main()
