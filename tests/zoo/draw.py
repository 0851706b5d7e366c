"""Random parameters without a compile, and compiles without optimisation: the tests' time is XLA's compile time."""

import functools

import jax
import numpy as np

from jaxscale import zoo
from jaxscale.types import ModelShape

QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def quick_jit(function):
    """`jax.jit` for a function that runs once."""
    return jax.jit(function, compiler_options=QUICK_COMPILE)


@functools.cache
def random_params(model: ModelShape, *, vocab_multiple: int = 1, seed: int = 0):
    """Parameters of which none is at a symmetric start; norm scales are near one."""
    rng = np.random.default_rng(seed)

    def one(path, info):
        noise = rng.standard_normal(info.shape, np.float32)
        if path[-1].key == "scale":
            return noise * 0.1 + (0.0 if model.norm_unit_offset else 1.0)
        return noise * (0.3 if "bias" in path[-1].key else 0.15)

    return jax.tree.map_with_path(one, zoo.parameter_info(model, vocab_multiple=vocab_multiple))


def random_tokens(model: ModelShape, batch: int, seq_len: int):
    return np.random.default_rng(1).integers(0, model.vocab_size, (batch, seq_len), np.int32)
