"""jaxscale: how a distributed training run will perform, before you pay for it."""

__version__ = "0.1.0"
