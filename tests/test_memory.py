"""Process memory: the collector ignores what exists at the start of the service, after what is garbage has been freed."""

from __future__ import annotations

import gc
import weakref

from service.memory import freeze_gc, limit_arenas, trim_memory


class Cycle:
    """An object that only the garbage collector frees."""

    def __init__(self) -> None:
        self.itself = self


def test_freezing_frees_cycles_and_excludes_the_rest_from_collections():
    gc.disable()
    try:
        garbage, kept = weakref.ref(Cycle()), Cycle()
        freeze_gc()
        assert garbage() is None
        assert gc.get_freeze_count() > 10_000
        assert not any(entry is kept for entry in gc.get_objects()), "the collector does not examine it any more"
    finally:
        gc.unfreeze()
        gc.enable()


def test_the_settings_of_the_allocator_lose_no_data():
    data = bytearray(b"a" * 1_000_000)
    limit_arenas()
    trim_memory()
    assert data.count(b"a") == 1_000_000
