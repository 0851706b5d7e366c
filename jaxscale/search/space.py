"""Every layout worth looking at, in chunks: the legal meshes of a cluster, each with every combination of options.

A *mesh* is the degrees of the six axes. Meshes are listed whole and checked against the rules of
`jaxscale.types.legality`; what breaks one is rejected with all its options. Options are the other fields of a layout.
What makes no difference is listed once:

* an option that a mesh does not use stays at its default (virtual stages and the pipeline's schedules without a
  pipeline, `layered` without one where there is one microbatch, the context method without a context axis, sequence
  parallelism without a tensor axis);
* parameters, gradients and optimizer state that are sharded over the whole of data x ZeRO group, or not at all, are
  the same on a mesh whose `data` and `fsdp` devices all stand on one of the two axes, and are listed only there;
* virtual stages with the same number of layers to a chunk: the smallest number of stages stands for them.

`zero_bubble` cannot run in one XLA program (see the rule of that name) and is not listed: it is for other runtimes.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxscale.search.limits import NO_LIMITS, SHARD_FIELDS, Limits
from jaxscale.types import AXES, REMAT_POLICIES, LayoutBatch, ModelShape, Workload
from jaxscale.types._check import divisors
from jaxscale.types.layout import BATCH_FIELDS, SCHEDULES
from jaxscale.types.legality import illegal_reasons

CHUNK_ROWS = 1 << 16
OPTIONS = tuple(name for name in BATCH_FIELDS if name not in AXES)
_NONE, _FSDP, _DATA = range(3)
_GPIPE, _1F1B, _INTERLEAVED, _LAYERED = (SCHEDULES.index(name) for name in ("gpipe", "1f1b", "interleaved", "layered"))
_SHARD_TRIPLES = tuple(t for t in itertools.product(range(3), repeat=3) if t[0] <= t[1] <= t[2])


OptionTable = tuple[np.ndarray, ...]  # every combination of options, a column [n] for each of OPTIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some layouts of a space, and for each of them which mesh it stands on."""

    layouts: LayoutBatch
    mesh: np.ndarray  # [n], row of `Space.meshes`


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The layouts of a model on a number of devices."""

    shape: ModelShape
    workload: Workload
    num_devices: int
    limits: Limits
    meshes: np.ndarray  # [m, 6], the legal ones, columns as AXES
    options: tuple[OptionTable, ...]  # of each mesh; meshes that allow the same share one table
    rejected_meshes: dict[str, int]  # by rule
    num_rejected_meshes: int

    @property
    def num_layouts(self) -> int:
        """Layouts that `chunks` will yield."""
        return sum(len(table[0]) for table in self.options)


def space(shape: ModelShape, workload: Workload, num_devices: int, limits: Limits = NO_LIMITS) -> Space:
    """List the meshes of `num_devices` devices within the limits, and check them against the rules."""
    meshes = all_meshes(num_devices, limits)
    legal, rejected = np.ones(len(meshes), dtype=bool), {}
    if len(meshes):
        batch = LayoutBatch.from_columns(dict(zip(AXES, meshes.T, strict=True)), len(meshes))
        for rule, broken in illegal_reasons(shape, workload, batch, num_devices).items():
            if broken.any():
                rejected[rule] = int(broken.sum())
                legal &= ~broken
    return Space(
        shape=shape, workload=workload, num_devices=num_devices, limits=limits, meshes=meshes[legal],
        options=_option_tables(shape, workload, limits, meshes[legal]), rejected_meshes=rejected,
        num_rejected_meshes=int((~legal).sum()),
    )  # fmt: skip


def all_meshes(num_devices: int, limits: Limits = NO_LIMITS) -> np.ndarray:
    """Every way to write `num_devices` as a product of six degrees within the limits, [m, 6], in a fixed order."""
    degrees = divisors(num_devices)
    partial = np.ones((1, 0), dtype=np.int64)
    left = np.array([num_devices], dtype=np.int64)
    for axis in AXES:
        choices = np.array(limits.allowed(axis, degrees), dtype=np.int64)
        row, choice = np.nonzero(left[:, None] % choices[None, :] == 0) if len(choices) else (left[:0], left[:0])
        partial = np.concatenate([partial[row], choices[choice][:, None]], axis=1)
        left = left[row] // choices[choice]
    return partial[left == 1]


def chunks(space: Space, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """Yield the layouts of a space, about `rows` at a time; a mesh is never cut."""
    group: list[int] = []
    size = 0
    for number, table in enumerate(space.options):
        if group and size + len(table[0]) > rows:
            yield _chunk(space, group)
            group, size = [], 0
        if len(table[0]):
            group.append(number)
            size += len(table[0])
    if group:
        yield _chunk(space, group)


def _chunk(space: Space, group: list[int]) -> Chunk:
    mesh = np.repeat(group, [len(space.options[number][0]) for number in group])
    columns = dict(zip(AXES, space.meshes[mesh].T.copy(), strict=True))
    for i, name in enumerate(OPTIONS):
        columns[name] = np.concatenate([space.options[number][i] for number in group])
    return Chunk(layouts=LayoutBatch(**columns), mesh=mesh)


def _option_tables(
    shape: ModelShape, workload: Workload, limits: Limits, meshes: np.ndarray
) -> tuple[OptionTable, ...]:
    """The options of every mesh; what they depend on is the same for many meshes."""
    known: dict[tuple, OptionTable] = {}
    tables = []
    for data, fsdp, expert, context, tensor, pipeline in meshes.tolist():
        local_batch = workload.global_batch_size // (data * fsdp * expert)
        shared = (data > 1, fsdp > 1, expert * context * pipeline > 1)
        key = (local_batch, tensor > 1, shared, pipeline, context > 1)
        if key not in known:
            table = _product(
                microbatches=limits.allowed("microbatch_size", divisors(local_batch)),
                sequence_parallel=limits.allowed("sequence_parallel", (0, 1)) if tensor > 1 else (0,),
                shards=_shards(*shared, limits),
                remat=limits.allowed("remat", tuple(range(len(REMAT_POLICIES)))),
                schedules=_schedules(pipeline, shape.num_layers, limits),
                context_method=limits.allowed("context_method", (0, 1)) if context > 1 else (0,),
                offload_optimizer=limits.allowed("offload_optimizer", (0, 1)),
            )
            known[key] = table if pipeline > 1 else _without_idle_layers(table, local_batch)
        tables.append(known[key])
    return tuple(tables)


def _product(
    *,
    microbatches: tuple[int, ...],
    sequence_parallel: tuple[int, ...],
    shards: tuple[tuple[int, int, int], ...],
    remat: tuple[int, ...],
    schedules: tuple[tuple[int, int], ...],
    context_method: tuple[int, ...],
    offload_optimizer: tuple[int, ...],
) -> OptionTable:
    parts = (microbatches, sequence_parallel, shards, remat, schedules, context_method, offload_optimizer)
    if not all(parts):  # the limits leave a field without a value
        return tuple(np.zeros(0, dtype=np.int64) for _ in OPTIONS)
    tables = [np.array(part, dtype=np.int64).reshape(len(part), -1) for part in parts]
    picks = np.indices([len(part) for part in parts]).reshape(len(parts), -1)  # [parts, n]
    columns = np.concatenate([table[pick] for table, pick in zip(tables, picks, strict=True)], axis=1)  # [n, fields]
    order = (
        "microbatch_size", "sequence_parallel", *SHARD_FIELDS, "remat", "schedule", "virtual_stages",
        "context_method", "offload_optimizer",
    )  # fmt: skip
    return tuple(np.ascontiguousarray(columns[:, order.index(name)]) for name in OPTIONS)


def _without_idle_layers(table: OptionTable, local_batch: int) -> OptionTable:
    """Drop the layered schedule where one microbatch, without a pipeline, passes layer by layer anyway."""
    columns = dict(zip(OPTIONS, table, strict=True))
    useful = (columns["schedule"] != _LAYERED) | (columns["microbatch_size"] < local_batch)
    return tuple(column[useful] for column in table)


def _shards(data: bool, fsdp: bool, others: bool, limits: Limits) -> tuple[tuple[int, int, int], ...]:
    """What parameters, gradients and optimizer state may be sharded over; `others`: the ZeRO group has more axes."""
    triples = _SHARD_TRIPLES
    if not limits.names_sharding:
        triples = _distinct_shards(data, fsdp, others)
    for position, name in enumerate(SHARD_FIELDS):
        triples = tuple(t for t in triples if limits.allowed(name, (t[position],)))
    return triples


def _distinct_shards(data: bool, fsdp: bool, others: bool) -> tuple[tuple[int, int, int], ...]:
    """The shardings of one mesh that no other mesh has: see the module's second rule."""
    if data:
        return tuple(t for t in _SHARD_TRIPLES if (_FSDP in t and (fsdp or others)) or (not any(t) and not fsdp))
    if fsdp or others:
        return tuple(t for t in _SHARD_TRIPLES if _DATA not in t and (any(t) or not fsdp))
    return ((_NONE, _NONE, _NONE),)


def _schedules(pipeline: int, num_layers: int, limits: Limits) -> tuple[tuple[int, int], ...]:
    """Pairs of schedule and virtual stages within the limits; without a pipeline only `layered` says something."""
    pipelined = tuple(code for code in range(len(SCHEDULES)) if code != _LAYERED)

    def allows(code: int) -> bool:
        asked = pipelined if pipeline == 1 and code != _LAYERED else (code,)
        return bool(limits.allowed("schedule", asked))

    return tuple(
        (code, v)
        for code, v in schedules_of(pipeline, num_layers)
        if allows(code) and limits.allowed("virtual_stages", (v,))
    )


def schedules_of(pipeline: int, num_layers: int) -> tuple[tuple[int, int], ...]:
    """Every pair of schedule code and virtual stages that makes a difference on `pipeline` stages."""
    if pipeline == 1:
        return ((_1F1B, 1), (_LAYERED, 1))
    by_depth: dict[int, int] = {}
    for v in range(2, num_layers // pipeline + 1):
        by_depth.setdefault(math.ceil(num_layers / (pipeline * v)), v)
    plain = ((_GPIPE, 1), (_1F1B, 1), (_LAYERED, 1))
    return (*plain, *((code, v) for code in (_INTERLEAVED, _LAYERED) for v in by_depth.values()))
