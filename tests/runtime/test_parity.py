"""Every layout computes what one device computes: losses of three steps, and the first gradient leaf by leaf."""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from jaxscale.errors import LayoutError
from jaxscale.runtime import TrainOptions
from jaxscale.types import parse_layout
from jaxscale.types.legality import check_layout
from tests.runtime.parity import SHAPES, Case, check_parity

# One layout of each kind: what a change of the runtime is most likely to break.
CORE = [
    Case(shape="gqa", layout="data=2,fsdp=2,zero=1"),
    Case(shape="gqa", layout="data=2,fsdp=2,optimizer_shard=data,microbatch=2"),
    Case(shape="gqa", layout="fsdp=2,tensor=2,sp=true,remat=none"),
    Case(shape="gqa", layout="fsdp=3,tensor=2,microbatch=2", global_batch=12),
    Case(shape="window", layout="context=4,fsdp=2"),
    Case(shape="mla", layout="tensor=2,context=2,context_method=all_gather"),
    Case(shape="moe", layout="expert=2,tensor=2,sp=true,fsdp=2"),
    Case(shape="gqa", layout="pipeline=2,fsdp=2,tensor=2"),
    Case(shape="shared", layout="pipeline=2,schedule=gpipe,expert=2"),
    Case(shape="gqa", layout="pipeline=2,schedule=interleaved,virtual_stages=2,context=2"),
    Case(shape="moe", layout="fsdp=2,expert=2,schedule=layered"),
    Case(shape="gqa", layout="fsdp=2,pipeline=2,schedule=layered,virtual_stages=2"),
]

ZERO = ["zero=0", "zero=1", "zero=2", "zero=3", "params_shard=none,grads_shard=fsdp,optimizer_shard=data"]
ZERO += [
    "params_shard=none,grads_shard=none,optimizer_shard=data",
    "params_shard=data,grads_shard=data,optimizer_shard=data",
]
REMATS = ["none", "dots", "attention", "flash", "offload_attention", "offload_inputs"]
AXIS_PAIRS = [
    "data=2,tensor=2", "data=2,context=2", "data=2,expert=2", "data=2,pipeline=2", "fsdp=2,tensor=2",
    "fsdp=2,context=2", "fsdp=2,expert=2", "fsdp=2,pipeline=2", "context=2,tensor=2", "expert=2,context=2",
    "expert=2,tensor=2", "expert=2,pipeline=2", "context=2,pipeline=2", "tensor=2,pipeline=2", "data=2,fsdp=2",
]  # fmt: skip
AXIS_TRIPLES = [
    "data=2,fsdp=2,expert=2", "fsdp=2,tensor=2,sp=true,context=2", "expert=2,tensor=2,sp=true,context=2",
    "expert=2,tensor=2,pipeline=2", "fsdp=2,context=2,pipeline=2,schedule=gpipe", "context=2,tensor=2,pipeline=2",
    "expert=2,context=2,pipeline=2,zero=1", "data=2,expert=2,context=2,optimizer_shard=data",
]  # fmt: skip

LAYERED = [
    "fsdp=2,tensor=2,sp=true", "data=2,fsdp=2,zero=2,remat=dots", "context=2,fsdp=2,remat=offload_attention",
    "data=2,fsdp=2,params_shard=fsdp,grads_shard=data,optimizer_shard=data", "fsdp=2,zero=0,remat=flash",
    "pipeline=2,fsdp=2,zero=1", "pipeline=2,context=2,microbatch=2", "pipeline=3,tensor=2,sp=true",
    "pipeline=2,virtual_stages=2,data=2,fsdp=2,optimizer_shard=data", "pipeline=4,microbatch=4",
    "pipeline=2,virtual_stages=2,context=2,context_method=all_gather,remat=none",
]  # fmt: skip

# Groups that divide no dim of a matrix, which is then stored with padding.
PADDED = [
    *(Case(shape="tied", layout=f"fsdp=3,tensor=2,{zero},microbatch=2", global_batch=12) for zero in ZERO[1:4]),
    *(Case(shape="mla", layout=f"data=3,fsdp=2,{zero}", global_batch=12) for zero in ZERO[4:]),
    Case(shape="moe", layout="fsdp=3,expert=2,optimizer_shard=data", global_batch=12),
    Case(
        shape="shared", layout="data=3,fsdp=2,params_shard=data,grads_shard=data,optimizer_shard=data", global_batch=6
    ),
    Case(shape="gqa", layout="fsdp=3,pipeline=2", global_batch=12),
    Case(shape="tied", layout="fsdp=3,pipeline=2,schedule=layered,zero=2", global_batch=12),
    Case(shape="shared", layout="fsdp=6,schedule=layered", global_batch=12),
    *(Case(shape="moe", layout="fsdp=6", global_batch=6, optimizer=name) for name in ("muon", "adafactor")),
]

MATRIX = [
    *PADDED,
    *(Case(shape="gqa", layout=f"{layout},schedule=layered") for layout in LAYERED),
    *(Case(shape="shared", layout=f"{layout},schedule=layered") for layout in ("expert=2,tensor=2", "pipeline=3")),
    Case(shape="moe", layout="pipeline=2,expert=2,fsdp=2,schedule=layered"),
    Case(shape="tied", layout="pipeline=2,tensor=2,sp=true,schedule=layered"),
    Case(shape="tied", layout="fsdp=2,tensor=2,schedule=layered", optimizer="muon"),
    *(Case(shape="gqa", layout=f"{a},schedule=layered", packed=True) for a in ("context=2,fsdp=2", "pipeline=2")),
    *(Case(shape="gqa", layout=f"data=2,fsdp=2,{zero},microbatch=2") for zero in ZERO),
    *(Case(shape="tied", layout=f"data=2,fsdp=2,tensor=2,{zero},microbatch=2") for zero in ZERO[:4]),
    *(Case(shape="gqa", layout=f"fsdp=2,remat={remat}") for remat in REMATS),
    *(Case(shape="moe", layout=axes) for axes in (*AXIS_PAIRS, *AXIS_TRIPLES)),
    *(Case(shape="mla", layout=axes) for axes in ("tensor=2,sp=true,fsdp=2", "context=2,pipeline=2", "tensor=4")),
    *(Case(shape="window", layout=axes) for axes in ("context=2,context_method=all_gather", "tensor=4,sp=true")),
    *(Case(shape="window", layout=f"pipeline={p},schedule={s}") for p, s in ((2, "gpipe"), (3, "1f1b"), (4, "1f1b"))),
    *(Case(shape="gqa", layout=f"pipeline=3,fsdp=2,schedule={s}") for s in ("gpipe", "1f1b")),
    Case(shape="gqa", layout="pipeline=2,schedule=interleaved,virtual_stages=2,tensor=2,sp=true"),
    Case(shape="shared", layout="pipeline=3,schedule=1f1b,tensor=2"),
    Case(shape="shared", layout="expert=4,tensor=2,sp=true"),
    Case(shape="shared", layout="fsdp=2,context=2,offload_optimizer=true"),
    Case(shape="gqa", layout="fsdp=2,zero=2,offload_optimizer=true,microbatch=2"),
    Case(shape="learned", layout="tensor=2,sp=true,context=2"),
    Case(shape="learned", layout="context=4,context_method=all_gather,pipeline=2"),
    Case(shape="alibi", layout="tensor=2,context=2,fsdp=2"),
    Case(shape="tied", layout="pipeline=2,tensor=2,sp=true,schedule=gpipe"),
    Case(shape="tied", layout="pipeline=2,fsdp=2,zero=2"),
    *(Case(shape="gqa", layout=axes, packed=True) for axes in ("context=2,fsdp=2", "pipeline=2,tensor=2,sp=true")),
    Case(shape="gqa", layout="context=4,context_method=all_gather", packed=True),
    *(
        Case(shape="moe", layout="data=2,fsdp=2,tensor=2,optimizer_shard=data", optimizer=name)
        for name in ("lion", "sgd", "adafactor", "muon")
    ),
    Case(shape="shared", layout="expert=2,pipeline=2,tensor=2", optimizer="muon"),
    *(Case(shape="moe", layout=axes, dropless=True) for axes in ("fsdp=2,tensor=2,sp=true", "expert=2,pipeline=2")),
    Case(shape="gqa", layout="pipeline=4,microbatch=8"),
    Case(shape="moe", layout="fsdp=2,tensor=4,axis_order=fsdp/tensor/data/context/expert/pipeline"),
    Case(shape="gqa", layout="fsdp=4,tensor=2", options=TrainOptions(z_loss=1e-2, warmup_steps=2, clip_norm=0.0)),
    Case(shape="moe", layout="fsdp=8", options=TrainOptions(router_aux_loss=0.1, router_z_loss=0.01)),
    Case(shape="moe", layout="tensor=2,sp=true,expert=4,microbatch=2", options=TrainOptions(router_aux_loss=0.1)),
]


@pytest.mark.parametrize("case", CORE, ids=str)
def test_layout_equals_one_device(case):
    check_parity(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", MATRIX, ids=str)
def test_matrix_equals_one_device(case):
    check_parity(case)


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["pipeline=1", "pipeline=2"])
def test_auxiliary_losses_of_several_microbatches_are_those_of_the_plain_loop(pipeline):
    options = TrainOptions(router_aux_loss=0.1)
    case = Case(shape="moe", layout=f"{pipeline},expert=2,fsdp=2,schedule=layered", options=options)
    check_parity(case, like="expert=2,fsdp=2")


def test_matrix_covers_every_pair_of_axes():
    axes = ("data", "fsdp", "expert", "context", "tensor", "pipeline")
    used = [{a for a in axes if getattr(parse_layout(case.layout), a) > 1} for case in (*CORE, *MATRIX)]
    missing = [(a, b) for a in axes for b in axes if a < b and not any({a, b} <= u for u in used)]
    assert not missing
    assert len(CORE) + len(MATRIX) >= 60


degree = st.sampled_from([1, 1, 2, 4])


@st.composite
def legal_cases(draw):
    """A random legal layout of a random shape on at most eight devices."""
    shape = draw(st.sampled_from(sorted(SHAPES)))
    degrees = {axis: draw(degree) for axis in ("data", "fsdp", "expert", "context", "tensor", "pipeline")}
    fields = degrees | {
        "microbatch_size": draw(st.sampled_from([1, 2])),
        "sp": draw(st.sampled_from(["true", "false"])),
        "zero": draw(st.sampled_from("0123")),
        "remat": draw(st.sampled_from(["none", "flash", "full"])),
        "schedule": draw(st.sampled_from(["gpipe", "1f1b", "layered"])),
        "context_method": draw(st.sampled_from(["ring", "all_gather"])),
    }
    case = Case(shape=shape, layout=",".join(f"{k}={v}" for k, v in fields.items()))
    layout = parse_layout(case.layout)
    assume(1 < layout.num_devices <= 8)
    try:
        check_layout(SHAPES[shape], case.workload, layout, layout.num_devices)
    except LayoutError:
        assume(False)
    return case


_SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


# The same two draws every time: new ones are for the slow test below.
@settings(max_examples=2, derandomize=True, **_SETTINGS)
@given(legal_cases())
def test_random_legal_layouts_equal_one_device(case):
    check_parity(case)


@pytest.mark.slow
@settings(max_examples=30, **_SETTINGS)
@given(legal_cases())
def test_many_random_legal_layouts_equal_one_device(case):
    check_parity(case)
