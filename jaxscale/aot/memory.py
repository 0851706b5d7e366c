"""Memory of a compiled program by the compiler's own account."""

import re
from typing import Any

from jaxscale.aot.result import CompiledMemory
from jaxscale.aot.targets import Target

_UNITS = {"B": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}
_TOTAL = re.compile(
    r"memory required[^(]*\(([\d.]+)([BKMGT])?[^)]*\) exceeds available HBM \(([\d.]+)([BKMGT])?[^)]*\)"
)


def memory_classes(analysis: Any, target: Target) -> CompiledMemory:
    """Read `Compiled.memory_analysis()`.

    The CPU backend's peak leaves temporaries out, so there it is their sum with arguments and outputs.
    """
    arguments = float(analysis.argument_size_in_bytes)
    outputs = max(0.0, float(analysis.output_size_in_bytes - analysis.alias_size_in_bytes))
    temporaries = float(analysis.temp_size_in_bytes)
    peak = float(getattr(analysis, "peak_memory_in_bytes", 0))
    if target.backend == "cpu" or not peak:
        peak = arguments + outputs + temporaries
    host = (
        analysis.host_argument_size_in_bytes
        + max(0, analysis.host_output_size_in_bytes - analysis.host_alias_size_in_bytes)
        + analysis.host_temp_size_in_bytes
    )
    return CompiledMemory(
        arguments_bytes=arguments,
        outputs_bytes=outputs,
        temporaries_bytes=temporaries,
        code_bytes=float(analysis.generated_code_size_in_bytes),
        aliased_bytes=float(analysis.alias_size_in_bytes),
        host_bytes=float(host),
        peak_bytes=peak,
    )


def out_of_memory_bytes(message: str) -> tuple[float, float] | None:
    """What a program needs and what there is, from the TPU compiler's refusal; None where the text is another.

    >>> out_of_memory_bytes("the total memory required for HLO temporaries (2.00G) exceeds available HBM (1.00G)")
    (2147483648.0, 1073741824.0)
    """
    match = _TOTAL.search(message)
    if match is None:
        return None
    needed, needed_unit, limit, limit_unit = match.groups()
    return float(needed) * _UNITS[needed_unit or "B"], float(limit) * _UNITS[limit_unit or "B"]
