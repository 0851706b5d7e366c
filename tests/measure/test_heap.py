"""The allocator of a process that emulates devices, by the kernel's count of page faults, in a process of its own."""

import subprocess
import sys

import pytest

THRICE = """
import resource
from jaxscale.measure.heap import keep_freed_memory

told = keep_freed_memory()
for _ in range(2):
    b"x" * (40 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
b"x" * (40 << 20)
print(int(told), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = (40 << 20) // 4096


def test_what_is_freed_is_kept():
    ran = subprocess.run([sys.executable, "-c", THRICE], capture_output=True, text=True, check=True)
    told, faults = map(int, ran.stdout.split())
    if not told:
        pytest.skip("this C library's allocator has no mallopt")
    assert faults < PAGES / 10
