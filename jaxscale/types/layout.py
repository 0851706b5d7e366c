"""How it is spread: the degree of every mesh axis, what is sharded over what, the microbatch, remat and schedule.

`Layout` is one point; `LayoutBatch` has the same fields as int64 arrays of shape [n], so that one formula serves one
layout and ten million. Mesh axes, in the words of the glossary:

| axis | splits | JAX mesh axis |
|---|---|---|
| data | the batch; parameters are replicas | `data` |
| fsdp | the batch; parameters, gradients, optimizer state as `*_shard` say | `fsdp` |
| expert | the batch outside the experts, the experts inside them | `expert` |
| context | the sequence, in attention too | `context` |
| tensor | heads, d_ff, vocabulary; with `sequence_parallel` also the residual stream's sequence | `tensor` |
| pipeline | the layers | `pipeline` |

The degrees multiply to the devices of the cluster. The ZeRO group, over which `*_shard=fsdp` splits parameters, is
fsdp x expert x context for dense parameters and fsdp x context for experts, which the expert axis splits already.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from jaxscale.errors import LayoutError, nearest
from jaxscale.types._check import require_choice, require_positive_int
from jaxscale.types.remat import REMATS, remat_policy

AXES = ("data", "fsdp", "expert", "context", "tensor", "pipeline")
INNERMOST_FIRST = ("tensor", "context", "expert", "fsdp", "data", "pipeline")  # default placement on the network

# layered: all microbatches pass a layer (with a pipeline: one of a stage's chunks) before the next one starts
Schedule = Literal["gpipe", "1f1b", "interleaved", "zero_bubble", "layered"]
Shard = Literal["none", "fsdp", "data"]  # not at all; over the ZeRO group; over the ZeRO group and data
ContextMethod = Literal["ring", "all_gather"]

SCHEDULES: tuple[str, ...] = get_args(Schedule)
SHARDS: tuple[str, ...] = get_args(Shard)
CONTEXT_METHODS: tuple[str, ...] = get_args(ContextMethod)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way to spread a training step over devices."""

    data: int = 1
    fsdp: int = 1
    expert: int = 1
    context: int = 1
    tensor: int = 1
    pipeline: int = 1
    microbatch_size: int = 1  # sequences of one microbatch on one batch shard
    sequence_parallel: bool = False
    params_shard: Shard = "fsdp"
    grads_shard: Shard = "fsdp"
    optimizer_shard: Shard = "fsdp"
    remat: str = "full"
    schedule: Schedule = "1f1b"
    virtual_stages: int = 1  # chunks of layers a pipeline stage holds
    context_method: ContextMethod = "ring"
    offload_optimizer: bool = False
    axis_order: tuple[str, ...] = INNERMOST_FIRST

    def __post_init__(self) -> None:
        require_positive_int("layout", LayoutError, **{axis: getattr(self, axis) for axis in AXES})
        require_positive_int(
            "layout", LayoutError, microbatch_size=self.microbatch_size, virtual_stages=self.virtual_stages
        )
        object.__setattr__(self, "remat", remat_policy(self.remat).name)
        require_choice("layout", LayoutError, allowed=SCHEDULES, schedule=self.schedule)
        require_choice("layout", LayoutError, allowed=CONTEXT_METHODS, context_method=self.context_method)
        shards = {f: getattr(self, f) for f in ("params_shard", "grads_shard", "optimizer_shard")}
        require_choice("layout", LayoutError, allowed=SHARDS, **shards)
        ranks = [SHARDS.index(shard) for shard in shards.values()]
        if ranks != sorted(ranks):
            raise LayoutError(
                f"layout: params_shard={self.params_shard}, grads_shard={self.grads_shard}, "
                f"optimizer_shard={self.optimizer_shard}: each must be sharded at least as widely as the one before it"
            )
        if sorted(self.axis_order) != sorted(AXES):
            raise LayoutError(f"layout: axis_order={self.axis_order} must name each of {', '.join(AXES)} once")

    @property
    def num_devices(self) -> int:
        """Product of all degrees."""
        return int(np.prod([getattr(self, axis) for axis in AXES]))

    @property
    def batch_shards(self) -> int:
        """Ways the global batch is split: data x fsdp x expert."""
        return self.data * self.fsdp * self.expert

    def num_microbatches(self, global_batch_size: int) -> int:
        """Microbatches that one batch shard runs a step (gradient accumulation, or pipeline microbatches)."""
        return global_batch_size // (self.batch_shards * self.microbatch_size)

    def __str__(self) -> str:
        """The layout as `--layout` reads it, defaults left out."""
        return format_layout(self)


BOOLS = ("sequence_parallel", "offload_optimizer")
CHOICES: dict[str, tuple[str, ...]] = {
    "params_shard": SHARDS,
    "grads_shard": SHARDS,
    "optimizer_shard": SHARDS,
    "remat": REMATS,
    "schedule": SCHEDULES,
    "context_method": CONTEXT_METHODS,
}
SHORT_NAMES = {
    "dp": "data", "tp": "tensor", "cp": "context", "ep": "expert", "pp": "pipeline", "sp": "sequence_parallel",
    "microbatch": "microbatch_size", "mbs": "microbatch_size",
}  # fmt: skip
ZERO_STAGES = {
    "0": ("none", "none", "none"),
    "1": ("none", "none", "fsdp"),
    "2": ("none", "fsdp", "fsdp"),
    "3": ("fsdp", "fsdp", "fsdp"),
}


def parse_layout(text: str) -> Layout:
    """Read a layout written as `axis=degree` and `option=value` pairs.

    `zero=0..3` is short for the three shard options; `dp tp cp ep pp sp microbatch` are short names.

    >>> parse_layout("fsdp=16,tensor=4,sp=true,remat=full").num_devices
    64
    """
    values: dict[str, object] = {}
    fields = {f.name for f in dataclasses.fields(Layout)} - {"axis_order"}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, separator, raw = (piece.strip() for piece in part.partition("="))
        if not separator:
            raise LayoutError(f"layout: {part!r} is not written as name=value, such as fsdp=16")
        key = SHORT_NAMES.get(key, key)
        if key == "zero":
            if raw not in ZERO_STAGES:
                raise LayoutError(f"layout: zero={raw!r} is not one of {', '.join(ZERO_STAGES)}")
            values |= zip(("params_shard", "grads_shard", "optimizer_shard"), ZERO_STAGES[raw], strict=True)
            continue
        if key not in fields and key != "axis_order":
            raise LayoutError(
                f"layout: {key!r} is unknown; known: {', '.join(sorted(fields))}, zero.{nearest(key, fields)}"
            )
        if key in values:
            raise LayoutError(f"layout: {key} is given twice")
        values[key] = _parse_value(key, raw)
    return Layout(**values)  # type: ignore[arg-type]


def _parse_value(key: str, raw: str) -> object:
    if key == "axis_order":
        return tuple(raw.split("/"))
    if key in BOOLS:
        if raw.lower() not in ("true", "false", "1", "0"):
            raise LayoutError(f"layout: {key}={raw!r} must be true or false")
        return raw.lower() in ("true", "1")
    if key in CHOICES:
        return raw
    try:
        return int(raw)
    except ValueError as error:
        raise LayoutError(f"layout: {key}={raw[:80]!r} must be a whole number") from error


def format_layout(layout: Layout) -> str:
    """Write a layout so that `parse_layout` reads it back; what is at its default is left out.

    >>> format_layout(Layout(fsdp=16, tensor=4, remat="full"))
    'fsdp=16,tensor=4,microbatch_size=1,remat=full'
    """
    always = ("microbatch_size", "remat")
    parts = []
    for f in dataclasses.fields(Layout):
        value = getattr(layout, f.name)
        if value == f.default and f.name not in always:
            continue
        if isinstance(value, bool):
            value = str(value).lower()
        parts.append(f"{f.name}={'/'.join(value) if isinstance(value, tuple) else value}")
    return ",".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutBatch:
    """`n` layouts as arrays: the fields of `Layout` but `axis_order`, int64 [n]; choices index their tuples.

    `remat` indexes `remats`: the named policies, then what policies of their own the layouts bring.
    """

    data: np.ndarray
    fsdp: np.ndarray
    expert: np.ndarray
    context: np.ndarray
    tensor: np.ndarray
    pipeline: np.ndarray
    microbatch_size: np.ndarray
    sequence_parallel: np.ndarray
    params_shard: np.ndarray
    grads_shard: np.ndarray
    optimizer_shard: np.ndarray
    remat: np.ndarray
    schedule: np.ndarray
    virtual_stages: np.ndarray
    context_method: np.ndarray
    offload_optimizer: np.ndarray
    axis_order: tuple[str, ...] = INNERMOST_FIRST  # one order for the whole batch
    remats: tuple[str, ...] = REMATS

    def __len__(self) -> int:
        return len(self.data)

    @classmethod
    def from_layouts(cls, layouts: Sequence[Layout]) -> "LayoutBatch":
        """Stack layouts that share one axis order."""
        orders = {layout.axis_order for layout in layouts}
        if len(orders) != 1:
            raise LayoutError("layout: a batch needs at least one layout, and one axis_order for all")
        remats = tuple(dict.fromkeys([*REMATS, *(layout.remat for layout in layouts)]))
        columns = {
            name: np.array([field_code(name, getattr(layout, name), remats) for layout in layouts], dtype=np.int64)
            for name in BATCH_FIELDS
        }
        return cls(**columns, axis_order=orders.pop(), remats=remats)

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, np.ndarray | int], size: int, axis_order: tuple[str, ...] = INNERMOST_FIRST
    ) -> "LayoutBatch":
        """Build a batch from some columns; the others take `Layout`'s defaults."""
        defaults = {f.name: field_code(f.name, f.default) for f in dataclasses.fields(Layout) if f.name in BATCH_FIELDS}
        full = {
            name: np.broadcast_to(np.asarray(columns.get(name, defaults[name]), dtype=np.int64), (size,))
            for name in BATCH_FIELDS
        }
        return cls(**full, axis_order=axis_order)

    def take(self, index: np.ndarray) -> "LayoutBatch":
        """Return the rows at `index` (integer or boolean)."""
        columns = {name: getattr(self, name)[index] for name in BATCH_FIELDS}
        return LayoutBatch(**columns, axis_order=self.axis_order, remats=self.remats)

    def layout(self, row: int) -> Layout:
        """Return one row as a `Layout`."""
        values: dict[str, object] = {}
        for name in BATCH_FIELDS:
            code = int(getattr(self, name)[row])
            if name == "remat":
                values[name] = self.remats[code]
                continue
            values[name] = CHOICES[name][code] if name in CHOICES else bool(code) if name in BOOLS else code
        return Layout(**values, axis_order=self.axis_order)  # type: ignore[arg-type]

    def layouts(self) -> Iterable[Layout]:
        """Yield every row as a `Layout`."""
        return (self.layout(row) for row in range(len(self)))

    @property
    def batch_shards(self) -> np.ndarray:
        """Ways the global batch is split, [n]."""
        return self.data * self.fsdp * self.expert

    @property
    def num_devices(self) -> np.ndarray:
        """Product of all degrees, [n]."""
        return self.batch_shards * self.context * self.tensor * self.pipeline


BATCH_FIELDS: tuple[str, ...] = tuple(
    f.name for f in dataclasses.fields(LayoutBatch) if f.name not in ("axis_order", "remats")
)


def field_code(name: str, value: object, remats: tuple[str, ...] = REMATS) -> int:
    """Return the number that stands for a field's value in a `LayoutBatch`."""
    if name == "remat":
        return remats.index(str(value))
    return CHOICES[name].index(value) if name in CHOICES else int(value)  # type: ignore[arg-type, call-overload]
