"""One training step of a transformers model under `torch.compile`, timed; a request as JSON on stdin, JSON on stdout.

float32 weights and AdamW state, bfloat16 matmuls by autocast, fused AdamW, clipping, gradient accumulation, PyTorch's
own flash attention: what a careful user of PyTorch writes. `config` is a Hugging Face configuration.
"""

import json
import sys
import time
from typing import Any

import torch
import transformers


def build(request: dict[str, Any], device: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**request["config"])
    config.use_cache = False
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    if request["remat"] == "full":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.to(device).train()


class Step:
    """An optimizer step on one fixed batch of random tokens."""

    def __init__(self, request: dict[str, Any], device: str):
        self.device, self.model = device, build(request, device)
        size = (request["global_batch"], request["seq_len"])
        self.tokens = torch.randint(request["config"]["vocab_size"], size, device=device)
        self.microbatch = request["microbatch"]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=device == "cuda"
        )
        backend = "inductor" if device == "cuda" else "eager"  # without a GPU only that everything fits together
        self.loss = torch.compile(self._loss, backend=backend)

    def _loss(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=tokens, labels=tokens).loss

    def __call__(self) -> float:
        parts = self.tokens.split(self.microbatch)
        total = torch.zeros((), device=self.device)
        for part in parts:
            with torch.autocast(self.device, torch.bfloat16):
                loss = self.loss(part) / len(parts)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return float(total)


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Step times, losses, peak memory; running out of memory is a result."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    try:
        step = Step(request, device)
        losses, times = [], []
        for _ in range(request["warmup"] + request["steps"]):
            started = time.perf_counter()
            losses.append(step())
            times.append(time.perf_counter() - started)
    except torch.OutOfMemoryError as error:
        return {"status": "out_of_memory", "message": str(error).splitlines()[0]}
    return {
        "status": "ok",
        "step_times_s": times[request["warmup"] :],
        "losses": losses,
        "num_parameters": sum(parameter.numel() for parameter in step.model.parameters()),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(json.dumps(measure(asked)))
