"""The winner's pipeline schedule as a drawing, timed by its estimate."""

from jaxscale.report.page import Drawing, Evidence
from jaxscale.report.schedule_svg import schedule_svg
from jaxscale.schedule import build, replay
from jaxscale.types import Estimate, Workload

MOST_MICROBATCHES = 64  # beyond that a drawing shows nothing
FORWARD_SHARE = 1.0 / 3.0  # a matmul's backward pass is two matmuls
# What one XLA program runs on all stages at once for each schedule.
FAMILIES = {"gpipe": "circular", "1f1b": "scan_1f1b", "interleaved": "circular", "layered": "scan_modular"}
ONCE_A_STEP = ("pipeline", "data", "optimizer", "overhead", "stragglers")


def schedule_drawing(e: Estimate, workload: Workload) -> Drawing | None:
    """Draw the schedule of a layout's pipeline; None without a pipeline, or with too many microbatches to see.

    A stage's work is the step's without what happens once; recomputing belongs to the backward pass, of the rest a
    third is forward.
    """
    layout = e.layout
    microbatches = layout.num_microbatches(workload.global_batch_size)
    if layout.pipeline == 1 or microbatches > MOST_MICROBATCHES or layout.schedule not in FAMILIES:
        return None
    actions = microbatches * layout.virtual_stages
    again_s = e.time_parts_s.get("recompute", 0.0) / actions
    work_s = sum(s for part, s in e.time_parts_s.items() if part not in (*ONCE_A_STEP, "recompute")) / actions
    schedule = build(
        FAMILIES[layout.schedule], stages=layout.pipeline, microbatches=microbatches, chunks=layout.virtual_stages
    )
    timeline = replay(schedule, FORWARD_SHARE * work_s, (1.0 - FORWARD_SHARE) * work_s + again_s)
    caption = (
        f"The {layout.schedule} schedule of {microbatches} microbatches over {layout.pipeline} stages, which all run "
        "one program in step. A third of a stage's work is drawn as forward, recomputing as backward."
    )
    sure = "The order is the schedule's own; times are the estimate's, the same on every stage."
    return Drawing(svg=schedule_svg(timeline), caption=caption, evidence=Evidence(tiers=("predicted",), sure=sure))
