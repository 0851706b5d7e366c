"""Everything that is fixed when a step is traced."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxscale.runtime.comms.mesh_comms import MeshComms, mesh_comms
from jaxscale.runtime.options import TrainOptions
from jaxscale.runtime.placement.params import ParamPlan, plan_param
from jaxscale.runtime.placement.rules import AxisRules
from jaxscale.runtime.placement.stages import StagePlan, plan_stages
from jaxscale.types import Layout, ModelShape, Workload
from jaxscale.zoo import EXPERT_DIM, Execution, ParamInfo, layer_kinds, parameter_info, segments

ENDS = ("embedding", "head")  # the parts of the parameters beside the layers' segments

_DTYPES = {2: jnp.bfloat16, 4: jnp.float32}  # by bytes of one number


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Shape, workload and layout with all that follows from them; what every function of the step reads."""

    shape: ModelShape
    workload: Workload
    layout: Layout
    options: TrainOptions
    execution: Execution
    rules: AxisRules
    comms: MeshComms
    stages: StagePlan
    plans: Any  # tree of ParamPlan, like the stacked parameters

    @property
    def compute_dtype(self) -> Any:
        """Of activations and of the weights that matmuls read."""
        return _DTYPES[self.workload.precision.compute_bytes]

    @property
    def master_dtype(self) -> Any:
        """Of the weights that the optimizer updates."""
        return _DTYPES[self.workload.precision.master_bytes]

    @property
    def grad_dtype(self) -> Any:
        """Of accumulated gradients."""
        return _DTYPES[self.workload.precision.grad_bytes]

    @property
    def reduce_dtype(self) -> Any:
        """Of gradients on the wire."""
        return _DTYPES[self.workload.precision.reduce_bytes]

    @property
    def num_microbatches(self) -> int:
        """Microbatches of one batch shard a step."""
        return self.layout.num_microbatches(self.workload.global_batch_size)

    @property
    def stream_shape(self) -> tuple[int, int, int]:
        """One microbatch of the residual stream on one device, [b, t, D]."""
        tokens = self.workload.seq_len // self.layout.context
        if self.comms.sequence_parallel:
            tokens //= self.layout.tensor
        return (self.layout.microbatch_size, tokens, self.shape.d_model)

    @property
    def head_parts(self) -> tuple[str, ...]:
        """Parts of the parameters that the head reads: its own, and a tied embedding."""
        return ("head", "embedding") if self.shape.tied_embeddings else ("head",)


def make_program(
    shape: ModelShape, workload: Workload, layout: Layout, *, options: TrainOptions, execution: Execution
) -> Program:
    """Plan a step; pure bookkeeping, no device and no memory."""
    rules = AxisRules(layout=layout)
    stages = plan_stages(shape, layout)
    return Program(
        shape=shape,
        workload=workload,
        layout=layout,
        options=options,
        execution=execution,
        rules=rules,
        comms=mesh_comms(layout),
        stages=stages,
        plans=_plan_params(shape, stages, rules),
    )


def _plan_params(shape: ModelShape, stages: StagePlan, rules: AxisRules) -> Any:
    """The plan of every parameter, layers stacked as the stages need them."""
    infos = parameter_info(shape, vocab_multiple=rules.layout.tensor)

    def ends(info: ParamInfo) -> ParamPlan:
        return plan_param(info, "ends", rules)

    def layers(info: ParamInfo, num_rows: int) -> ParamPlan:
        stacked = dataclasses.replace(info, shape=(num_rows, *info.shape[1:]))
        return plan_param(stacked, "expert" if EXPERT_DIM in info.dims else "dense", rules)

    by_structure = {
        kind.moe: stack
        for segment, stacks in zip(segments(layer_kinds(shape)), infos["segments"], strict=True)
        for kind, stack in zip(segment.kinds, stacks, strict=True)
    }

    def of_stack(rows: tuple[int, ...]) -> Any:
        sparse = shape.is_moe_layer(next(layer for layer in rows if layer >= 0))
        return jax.tree.map(lambda info: layers(info, len(rows)), by_structure[sparse])

    return {
        "embedding": jax.tree.map(ends, infos["embedding"]),
        "segments": tuple(tuple(map(of_stack, stacks)) for stacks in stages.stacks),
        "head": jax.tree.map(ends, infos["head"]),
    }
