"""Stands in for `jaxscale.aot.child`: a compiler that finds the program too large."""

import json
import sys
from pathlib import Path

from jaxscale.aot.request import CompileRequest
from jaxscale.aot.result import Buffer, CompiledStep
from jaxscale.types.codec import decode, encode

request = decode(CompileRequest, json.load(sys.stdin))
result = CompiledStep(
    status="out_of_memory",
    message="the total memory required for HLO temporaries (20.13G) exceeds available HBM (15.75G)",
    layout=request.layout,
    model=request.shape.name,
    cluster=request.cluster.name,
    target=request.target,
    memory=None,
    memory_limit_bytes=15.75 * 2**30,
    largest_buffers=(Buffer(name="fusion.1", num_bytes=9e9, type_text="f32[2]", source="jit(f)/mlp/dot"),),
)
Path(sys.argv[1]).write_text(json.dumps(encode(result)))
