"""What the parity tests share: small shapes, one run of three steps, and the comparison with one device."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from jaxscale.runtime import NO_TARGET, Batch, TrainOptions, build_step
from jaxscale.runtime.canonical import to_canonical
from jaxscale.types import (
    Layout,
    MLAShape,
    ModelShape,
    MoEShape,
    Workload,
    optimizer_named,
    parse_layout,
    precision_named,
)

STEPS = 3
LOSS_TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2}  # relative, by precision
# Of a leaf's largest gradient. Sums over devices are taken in another order than on one.
GRADIENT_TOLERANCE = {"fp32": 2e-5, "bf16": 0.15}

_BASE = ModelShape(
    name="dense", num_layers=2, d_model=32, num_heads=4, num_kv_heads=4, head_dim=8, d_ff=64, vocab_size=61
)
_MOE = MoEShape(num_experts=4, experts_per_token=2, expert_d_ff=16)

SHAPES: dict[str, ModelShape] = {
    "gqa": dataclasses.replace(_BASE, name="gqa", num_kv_heads=2, num_layers=4),
    "tied": dataclasses.replace(_BASE, name="tied", tied_embeddings=True, qk_norm="full", qkv_bias=True),
    "window": dataclasses.replace(
        _BASE, name="window", num_layers=4, window=6, global_interval=2, norm_placement="sandwich", logit_softcap=9.0
    ),
    "learned": dataclasses.replace(
        _BASE,
        name="learned",
        positions="learned",
        max_seq_len=32,
        norm="layernorm",
        norm_bias=True,
        mlp="gelu",
        mlp_bias=True,
        attention_out_bias=True,
        qkv_bias=True,
        attention_sinks=True,
    ),
    "alibi": dataclasses.replace(_BASE, name="alibi", positions="alibi", parallel_block=True),
    "moe": dataclasses.replace(_BASE, name="moe", moe=_MOE),
    "shared": dataclasses.replace(
        _BASE,
        name="shared",
        num_layers=3,
        moe=dataclasses.replace(
            _MOE,
            num_leading_dense_layers=1,
            num_shared_experts=1,
            shared_expert_d_ff=16,
            router="sigmoid",
            router_bias=True,
            expert_bias=True,
        ),
    ),
    "mla": dataclasses.replace(
        _BASE,
        name="mla",
        mla=MLAShape(kv_lora_rank=12, q_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8),
    ),
}


_OPTIONS = TrainOptions()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One layout of one shape, and what it runs."""

    shape: str
    layout: str
    global_batch: int = 8
    optimizer: str = "adamw"
    packed: bool = False
    dropless: bool = False
    precision: str = "fp32"
    options: TrainOptions = _OPTIONS

    def __str__(self) -> str:
        extra = [name for name in (self.optimizer, self.precision) if name not in ("adamw", "fp32")]
        return " ".join(
            [self.shape, self.layout, *extra, *(name for name in ("packed", "dropless") if getattr(self, name))]
        )

    @property
    def parsed(self) -> Layout:
        return parse_layout(self.layout)

    @property
    def workload(self) -> Workload:
        # With a factor of E / k a buffer holds every token, so that none is dropped under any split of the batch.
        return Workload(
            seq_len=32,
            global_batch_size=self.global_batch,
            precision=precision_named(self.precision),
            optimizer=optimizer_named(self.optimizer),
            capacity_factor=0.0 if self.dropless else _MOE.num_experts / _MOE.experts_per_token,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What three steps gave: losses, gradients of the first step, parameters after the last."""

    losses: np.ndarray
    gradients: Any
    params: Any


def make_batch(workload: Workload, vocab_size: int, *, packed: bool) -> Batch:
    """Random tokens; packed: three documents a sequence, and no target at a document's last token."""
    rng = np.random.default_rng(0)
    size = (workload.global_batch_size, workload.seq_len)
    tokens = rng.integers(0, vocab_size, (size[0], size[1] + 1), dtype=np.int32)
    if not packed:
        return Batch(tokens=tokens[:, :-1], targets=tokens[:, 1:])
    ends = np.sort(rng.choice(np.arange(2, size[1] - 1), (size[0], 2)), axis=1)
    place = np.broadcast_to(np.arange(size[1]), size)
    segments = (place[:, :, None] >= ends[:, None, :]).sum(-1).astype(np.int32)
    starts = np.concatenate([np.zeros((size[0], 1), int), ends], axis=1)
    positions = (place - np.take_along_axis(starts, segments, axis=1)).astype(np.int32)
    last = (place[:, :, None] + 1 == ends[:, None, :]).any(-1)
    targets = np.where(last, NO_TARGET, tokens[:, 1:]).astype(np.int32)
    return Batch(tokens=tokens[:, :-1], targets=targets, segments=segments, positions=positions)


@functools.cache
def initial(shape: ModelShape) -> Any:
    """Whole parameters that every layout starts from."""
    ts = build_step(shape, Workload(seq_len=32, global_batch_size=1), Layout(), jax.devices()[:1])
    return jax.tree.map(np.asarray, ts.init().master)


def run(case: Case, layout: Layout) -> Run:
    """Three steps of a case under a layout, from the same parameters and batch as every other layout."""
    shape, workload = SHAPES[case.shape], case.workload
    ts = build_step(shape, workload, layout, jax.devices()[: layout.num_devices], options=case.options)
    state = ts.init(initial(shape))
    batch = jax.device_put(make_batch(workload, shape.vocab_size, packed=case.packed), ts.batch_sharding)
    losses, gradients = [], None
    for _ in range(STEPS):
        state, metrics = ts.step(state, batch)
        losses.append(float(metrics["loss"] + metrics["aux_loss"]))
        if gradients is None and case.optimizer == "adamw":
            # After one step Adam's first moment is the clipped gradient times a constant.
            gradients = jax.tree.map(np.asarray, to_canonical(ts.program, jax.device_get(state.optimizer[0].mu)))
    params = jax.tree.map(np.asarray, to_canonical(ts.program, jax.device_get(state.master)))
    return Run(losses=np.array(losses), gradients=gradients, params=params)


@functools.cache
def one_device(case: Case) -> Run:
    """The same three steps on one device, the whole batch at once."""
    return run(case, Layout(microbatch_size=case.global_batch))


def check_parity(case: Case, like: str = "") -> None:
    """Losses and every leaf of the gradients equal one device's, or those of the layout `like`.

    Routers' auxiliary losses are means over a microbatch: with several of them a layout is held against one that splits
    the batch alike, for one device takes the whole batch at once.
    """
    reference = run(case, parse_layout(like)) if like else one_device(dataclasses.replace(case, layout=""))
    found = run(case, case.parsed)
    np.testing.assert_allclose(found.losses, reference.losses, rtol=LOSS_TOLERANCE[case.precision])
    if reference.gradients is None:
        return
    pairs = zip(jax.tree_util.tree_leaves_with_path(found.gradients), jax.tree.leaves(reference.gradients), strict=True)
    for (path, got), expected in pairs:
        scale = max(float(np.abs(expected).max()), 1e-12)
        np.testing.assert_allclose(
            got / scale,
            expected / scale,
            atol=GRADIENT_TOLERANCE[case.precision],
            rtol=0,
            err_msg=jax.tree_util.keystr(path),
        )
