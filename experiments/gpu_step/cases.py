"""What is compared: models as Hugging Face configurations, so that both sides build the same one, and batch sizes."""

from dataclasses import dataclass, field
from typing import Any

_LLAMA32 = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}  # fmt: skip

# Llama 3.2 1B and 3B as published; a mixture of experts that fits a GPU of 80 GB with all of its optimizer's state.
MODELS: dict[str, dict[str, Any]] = {
    "llama3.2-1b": _LLAMA32 | {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64,
    },
    "llama3.2-3b": _LLAMA32 | {
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
        "num_key_value_heads": 8, "head_dim": 128,
    },
    "moe-32x4": {
        "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 65536, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 16, "num_attention_heads": 16,
        "num_key_value_heads": 4, "head_dim": 128, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "num_experts": 32, "num_experts_per_tok": 4, "moe_intermediate_size": 768,
        "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
}  # fmt: skip
_TINY = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
SMOKE_MODELS = {
    "tiny-dense": MODELS["llama3.2-1b"] | _TINY,
    "tiny-moe": MODELS["moe-32x4"] | _TINY | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model at one sequence length, and the ways of running it that each side may choose the fastest of."""

    model: str
    config: dict[str, Any]
    seq_len: int
    global_batch: int  # sequences of one optimizer step
    microbatches: tuple[int, ...]  # sizes to try, sequences; each divides the global batch
    remats: tuple[str, ...] = field(default=("none", "flash", "full"))  # ours; torch has all of a layer or nothing
    steps: int = 10
    warmup: int = 3

    @property
    def name(self) -> str:
        return f"{self.model} at {self.seq_len}"


def cases(*, smoke: bool) -> list[Case]:
    """The comparison, or its small copy for a machine without a GPU. 32,768 tokens a step."""
    if smoke:
        small = {"seq_len": 64, "global_batch": 2, "microbatches": (1, 2), "remats": ("full",), "steps": 2, "warmup": 1}
        return [Case(model=name, config=config, **small) for name, config in SMOKE_MODELS.items()]
    return [
        Case(model=name, config=config, seq_len=seq_len, global_batch=32768 // seq_len, microbatches=sizes)
        for name, config in MODELS.items()
        for seq_len, sizes in ((2048, (1, 2, 4, 8)), (8192, (1, 2)))
    ]
