"""The compile tier: the real TPU, GPU and CPU compilers as oracle, on a machine without accelerators."""
