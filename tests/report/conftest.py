import os

# The example of a fitted law: without this jax looks for an accelerator for half a minute.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
