"""A small table of runs in the columns of the field's published tables, as CSV text."""

import csv
import io

ROW = {
    "id": "run", "source": "mine", "hardware": "a100-sxm-80gb", "num_chips": 16, "chips_per_node": 8,
    "inter_node_gbps_per_chip": 200, "num_layers": 16, "d_model": 4096, "num_q_heads": 32, "num_kv_heads": 32,
    "head_dim": 128, "d_ff": 11008, "mlp_type": "swiglu", "vocab_size": 32000, "tied_embeddings": False,
    "seq_len": 2048, "global_batch_seqs": 64, "micro_batch_seqs": 1, "dp": 8, "zero_stage": 1, "tp": 2, "sp": False,
    "pp": 1, "virtual_pp": 1, "cp": 1, "ep": 1, "recompute": "none", "attention_kernel": "flash2", "precision": "bf16",
    "optimizer": "adamw", "framework": "Megatron-LM", "outcome": "ok", "step_time_s": 1.5, "mfu_reported": "",
    "num_experts": "", "experts_per_token": "",
    "peak_memory_gb": "", "variant": "", "group": "mine", "family": "sweep", "weight": 1.0, "ablation_key": "sweep",
}  # fmt: skip


def table(*changes: dict) -> str:
    """One row for each change of `ROW`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(ROW), lineterminator="\n")
    writer.writeheader()
    for i, change in enumerate(changes):
        writer.writerow(ROW | {"id": f"run-{i}"} | change)
    return text.getvalue()


# Six layouts that differ in tensor, pipeline, microbatch and recompute; times as a real cluster might give them.
SWEEP = (
    {"step_time_s": 1.62},
    {"tp": 1, "dp": 16, "step_time_s": 1.51},
    {"tp": 4, "dp": 4, "step_time_s": 1.98},
    {"pp": 2, "dp": 4, "step_time_s": 1.75},
    {"recompute": "full", "step_time_s": 2.05},
    {"micro_batch_seqs": 2, "step_time_s": 1.58},
    {"tp": 1, "dp": 16, "micro_batch_seqs": 4, "seq_len": 8192, "outcome": "oom", "step_time_s": ""},
)
