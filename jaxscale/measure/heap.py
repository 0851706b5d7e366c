"""The heap of a process that emulates devices: what a step frees is kept for the next one, as accelerators do.

An emulated device takes its temporary memory from the C library's allocator at the start of every step, and gives it
back at the end. GNU's returns blocks above 32 MiB, and often smaller ones, to the kernel, which hands out zeroed pages
one fault at a time: 81,000 faults and a fifth of the step for eight devices of 40 MiB each. The allocators of real
devices hold on to their memory, and so does this process once `keep_freed_memory` was called.
"""

import ctypes

# Parameters of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4

ARENA_BYTES = 64 << 20  # of a thread's heap in glibc: with so much padding none that empties is given back
NEVER_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the allocator keep what is freed; returns whether it can be told so (glibc)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wishes = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER_BYTES), (M_TOP_PAD, ARENA_BYTES))
    return all([mallopt(parameter, value) for parameter, value in wishes])
