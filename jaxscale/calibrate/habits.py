"""What frameworks do by their code, and no measurement has to tell: fields of `Stack` that differ from its defaults."""

from collections.abc import Mapping

HABITS: Mapping[str, Mapping[str, float]] = {
    # github.com/Aleph-Alpha/scaling: `allreduce_bucket` in float32 under ZeRO; `EVERY_LAYER` checkpoints of whole
    # layers; the loss over gathered logits. Its default split into stages counts embedding, norm and head as a layer
    # each; the published runs are told better, on sweeps left out, with as many layers on every stage.
    "megatron_aa": {"whole_recompute": 1.0, "whole_reduction": 1.0, "gathered_logits": 1.0},
    # Megatron's `CheckpointFunction` runs the forward pass of its layers to the end.
    "megatron": {"whole_recompute": 1.0},
    "megatron_deepspeed": {"whole_recompute": 1.0},
    "megatron_core": {"whole_recompute": 1.0, "split_dispatch": 1.0},
    # torchtitan gives embedding and head the weight of a layer each when it splits a model into stages.
    "torch_titan": {"modules_before": 1.0, "modules_after": 1.0},
}  # fmt: skip
