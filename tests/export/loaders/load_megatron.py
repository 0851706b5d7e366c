"""With megatron-core installed: every argument is a field of its configs, whose own checks take the values.

Megatron-LM's argparse (megatron/training/arguments.py) is not in the wheel: ELSEWHERE are its arguments whose names are
not those of fields.
"""

import dataclasses
import json
import shlex
import sys
from pathlib import Path

from megatron.core.distributed import DistributedDataParallelConfig  # pyrefly: ignore
from megatron.core.optimizer import OptimizerConfig  # pyrefly: ignore
from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig  # pyrefly: ignore

KINDS = (MLATransformerConfig, OptimizerConfig, DistributedDataParallelConfig)
FIELDS = {field.name for kind in KINDS for field in dataclasses.fields(kind)}
ELSEWHERE = {
    "micro_batch_size", "global_batch_size", "seq_length", "vocab_size", "norm_epsilon", "group_query_attention",
    "swiglu", "squared_relu", "quick_geglu", "max_position_embeddings", "position_embedding_type", "rotary_percent",
    "untie_embeddings_and_output_weights", "disable_bias_linear", "num_experts", "use_rope_scaling",
    "rope_scaling_factor", "num_layers_per_virtual_pipeline_stage", "use_megatron_fsdp", "fp8_format", "ckpt_format",
}  # fmt: skip
COUNTS = (
    "num_layers", "hidden_size", "num_attention_heads", "num_query_groups", "kv_channels", "ffn_hidden_size",
    "tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size",
    "expert_model_parallel_size", "expert_tensor_parallel_size", "moe_router_topk", "moe_ffn_hidden_size",
    "kv_lora_rank", "q_lora_rank", "qk_head_dim", "qk_pos_emb_head_dim", "v_head_dim",
    "moe_shared_expert_intermediate_size", "moe_router_num_groups", "moe_router_group_topk",
)  # fmt: skip
WORDS = (
    "recompute_granularity", "recompute_method", "cp_comm_type", "moe_token_dispatcher_type", "normalization",
    "moe_router_score_function",
)  # fmt: skip


def read(path: Path) -> dict[str, str]:
    """One argument a line."""
    words = [shlex.split(line) for line in path.read_text().splitlines()]
    return {key.removeprefix("--").replace("-", "_"): " ".join(values) for key, *values in words}


def built(args: dict[str, str]) -> TransformerConfig:
    """The config of the model, as pretrain_gpt.py would make it; its __post_init__ checks the combination."""
    values = {key: int(args[key]) for key in COUNTS if key in args} | {k: args[k] for k in WORDS if k in args}
    values["gated_linear_unit"] = "swiglu" in args or "quick_geglu" in args
    values |= {"add_bias_linear": "disable_bias_linear" not in args, "bf16": "bf16" in args}
    values["sequence_parallel"] = "sequence_parallel" in args
    if "recompute_modules" in args:
        values["recompute_modules"] = args["recompute_modules"].split()
    if "num_experts" in args:
        values["num_moe_experts"] = int(args["num_experts"])
    if int(args["pipeline_model_parallel_size"]) > 1:
        values["pipeline_dtype"] = __import__("torch").bfloat16
    if args.get("recompute_granularity") == "full":
        values["recompute_num_layers"] = int(args["recompute_num_layers"])
    kind = MLATransformerConfig if "multi_latent_attention" in args else TransformerConfig
    return kind(**values)


for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    case = json.loads((folder / "case.json").read_text())
    args = read(folder / case["filename"])
    said = {"case": folder.name, "error": "", "unknown": sorted(set(args) - FIELDS - ELSEWHERE)}
    try:
        config = built(args)
        said |= {"batch": int(args["global_batch_size"]), "seq_len": int(args["seq_length"])}
        said |= {"tensor": config.tensor_model_parallel_size, "context": config.context_parallel_size}
        said |= {"expert": config.expert_model_parallel_size, "pipeline": config.pipeline_model_parallel_size}
    except Exception as error:
        said["error"] = f"{type(error).__name__}: {error}"
    print("SAID", json.dumps(said), flush=True)
