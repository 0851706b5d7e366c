"""Stands in for `jaxscale.aot.child`: behaves as the model's name tells it, without a compiler."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from jaxscale.aot.request import CompileRequest
from jaxscale.aot.result import CompiledMemory, CompiledStep
from jaxscale.types.codec import decode, encode

FOREVER_S = 600


def main() -> None:
    request = decode(CompileRequest, json.load(sys.stdin))
    behaviour, _, argument = request.shape.name.partition(":")
    if argument:  # leave word of the process, and a grandchild that must not outlive it
        grandchild = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({FOREVER_S})"])
        Path(argument, f"{os.getpid()}").write_text(str(grandchild.pid))
    if behaviour == "hang":
        time.sleep(FOREVER_S)
    if behaviour == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "garble":
        Path(sys.argv[1]).write_text('{"status": ')
        return
    if behaviour == "abort":
        sys.exit("unknown flag: xla_no_such_flag")
    memory = CompiledMemory(
        arguments_bytes=8.0, outputs_bytes=0.0, temporaries_bytes=4.0, code_bytes=0.0, aliased_bytes=8.0,
        host_bytes=0.0, peak_bytes=12.0,
    )  # fmt: skip
    result = CompiledStep(
        status="compiled",
        message="",
        layout=request.layout,
        model=request.shape.name,
        cluster=request.cluster.name,
        target=request.target,
        memory=memory,
        memory_limit_bytes=100.0,
    )
    Path(sys.argv[1]).write_text(json.dumps(encode(result)))


main()
