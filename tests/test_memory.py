"""Host memory: what a compilation freed goes back to the kernel, although freed memory is kept between steps."""

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, re
import jax
from vit_jax import memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024

memory.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [libc.malloc(2**20) for _ in range(300)]
for block in blocks:
    ctypes.memset(block, 1, 2**20)
full = resident()
for block in blocks:
    libc.free(block)
kept = resident()
memory.return_freed_memory()
print(full, kept, resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_kept_until_it_is_returned():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    full, kept, returned = map(int, done.stdout.split())
    assert kept > full - 20
    assert returned < full - 250
