"""FLOPs of the kernels that jaxscale's own step runs and whose calls state none: fused attention.

Every pair of query and key counts, masked or not, as in MFU's usual convention (PaLM, arXiv 2204.02311, appendix B),
so that figures of kernels and of plain attention compare. A backward kernel counts the matmuls it runs, scores made
again among them (FlashAttention-2, arXiv 2307.08691, algorithm 2).
"""

import json
import math
import re
from dataclasses import dataclass

from jaxscale.aot.hlo.shapes import ArrayType
from jaxscale.aot.hlo.text import Computation, Instruction


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """Matmuls of one kernel: over the width of queries and keys, and over the width of values."""

    name: str
    key_matmuls: int
    value_matmuls: int


# jax.experimental.pallas.ops.tpu.splash_attention: kernels named splash_mha_fwd..., splash_mqa_dq... and so on
_SPLASH = re.compile(r"splash_m[hq]a_(fwd|dkv|dq)")
_SPLASH_PASSES = {
    "fwd": _Pass(name="fwd", key_matmuls=1, value_matmuls=1),  # scores; weighted values
    "dkv": _Pass(name="dkv", key_matmuls=2, value_matmuls=2),  # scores, dK; dP, dV
    "dq": _Pass(name="dq", key_matmuls=2, value_matmuls=1),  # scores, dQ; dP
}
_CUDNN = re.compile(r"__cudnn\$fmha\w*?(Backward)?$")
_CUDNN_MATMULS = {False: 2, True: 5}  # forward; scores, dV, dP, dQ, dK
_SCORES = re.compile(r'"intermediate_tensor_shape":\{[^}]*?"dimensions":(\[[^\]]*\])')


def attention_flops(instruction: Instruction, computation: Computation) -> float | None:
    """FLOPs of one call of a fused attention kernel; None for any other kernel."""
    if splash := _SPLASH.search(f"{instruction.source} {instruction.name}"):
        return _splash(_SPLASH_PASSES[splash.group(1)], computation.operand_types(instruction))
    if cudnn := _CUDNN.search(instruction.custom_call_target):
        return _cudnn(instruction, computation, _CUDNN_MATMULS[cudnn.group(1) is not None])
    return None


def _splash(kernel: _Pass, operands: tuple[ArrayType, ...]) -> float | None:
    """Queries [.., n, t, h], keys [.., n, s, h] and values [.., n, s, v] are the first three float operands."""
    floats = [array for array in operands if array.dtype in ("bf16", "f16", "f32") and len(array.dims) >= 3]
    if len(floats) < 3:
        return None
    q, k, v = (array.dims for array in floats[:3])
    pairs = math.prod(q[:-1]) * k[-2]
    return 2.0 * pairs * (kernel.key_matmuls * q[-1] + kernel.value_matmuls * v[-1])


def _cudnn(instruction: Instruction, computation: Computation, matmuls: int) -> float | None:
    """cuDNN calls name the shape of the scores, [b, n, t, s]; the width is the queries' last dim."""
    scores, q = _SCORES.search(instruction.attributes), computation.operand(instruction, 0)
    if scores is None or q is None:
        return None
    return 2.0 * matmuls * math.prod(int(size) for size in json.loads(scores.group(1))) * q.outputs[0].dims[-1]
