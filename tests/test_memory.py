"""What is there to stay is passed over by the collector; what was garbage before is not kept with it."""

from __future__ import annotations

import gc
import weakref

from service.memory import bound, give_back, settle


class Circle:
    def __init__(self) -> None:
        self.itself = self


def test_settling_frees_circles_and_passes_over_the_rest():
    gc.disable()
    try:
        gone, stays = weakref.ref(Circle()), Circle()
        settle()
        assert gone() is None
        assert gc.get_freeze_count() > 10_000
        assert not any(found is stays for found in gc.get_objects()), "the collector does not look at it any more"
    finally:
        gc.unfreeze()
        gc.enable()


def test_the_allocator_is_told_and_nothing_is_lost():
    kept = bytearray(b"a" * 1_000_000)
    bound()
    give_back()
    assert kept.count(b"a") == 1_000_000
