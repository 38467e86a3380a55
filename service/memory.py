"""Memory that is free, given back: what the collector sees too late, and what the allocator would keep."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of malloc.h


def bound() -> None:
    """Tell glibc's allocator to keep few heaps, and the largest tensors out of them; to be called before threads begin.

    One heap a thread and tensors of all sizes in it: 48 clients made 640 MB grow to 1,190 in a minute, and on; so they are
    1,000 and stay there. Smaller tensors in pages of their own would make 800, and a fifth fewer captions a second.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(_M_ARENA_MAX, 2)
            library.mallopt(_M_MMAP_THRESHOLD, 16 << 20)


def settle() -> None:
    """Let the collector pass over what is there to stay: its rounds become short, and it makes them often.

    Some 400,000 objects of libraries and networks would make a whole round take 0.2 s and a rare event, and the tracebacks of
    clients that left would hold their pictures until then. To be called once, before anything is served: what is found in
    use here and becomes garbage in a circle stays for ever.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Return freed memory to the system: tensors of many sizes leave holes. Takes some 10 ms."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library has no such function
            ctypes.CDLL(None).malloc_trim(0)
