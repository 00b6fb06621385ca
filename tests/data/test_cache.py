"""The shared cache gives back what was put in, also from another process, and never more than its limit."""

import multiprocessing
from copy import copy
from pathlib import Path

import numpy as np
import pytest

from pocketvision.data import cache as cache_module
from pocketvision.data.cache import LIMIT, ImageCache, cache_limit


def image(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_round_trip_within_the_limit():
    cache = ImageCache(4, 150)
    assert cache.get(0) is None
    cache.put(0, image(5, 4, 7))
    cache.put(3, image(5, 6, 8))
    cache.put(2, image(1, 1, 9))
    assert np.array_equal(cache.get(0), image(5, 4, 7))
    assert np.array_equal(cache.get(3), image(5, 6, 8))
    assert cache.get(2) is None
    assert cache.get(1) is None


def test_a_cache_without_memory_keeps_nothing():
    cache = ImageCache(1, 0)
    cache.put(0, image(1, 1, 1))
    assert cache.get(0) is None


def test_forked_processes_share_it():
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork; caches are private there")
    cache = ImageCache(2, 1000)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=cache.put, args=(index, image(2, 3, index + 1))) for index in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert np.array_equal(cache.get(0), image(2, 3, 1))
    assert np.array_equal(cache.get(1), image(2, 3, 2))


def test_a_worker_that_died_with_the_lock_blocks_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_module, "_LOCK_TIMEOUT_S", 0.01)
    cache = ImageCache(1, 1000)
    cache._lock.acquire()
    cache.put(0, image(2, 3, 1))
    assert cache.get(0) is None


def test_sent_to_a_spawned_process_it_starts_empty():
    cache = ImageCache(2, 1000)
    cache.put(0, image(2, 3, 1))
    sent = copy(cache)  # asks the same of it as sending
    assert sent.get(0) is None
    sent.put(0, image(2, 3, 5))
    assert np.array_equal(sent.get(0), image(2, 3, 5))
    assert np.array_equal(cache.get(0), image(2, 3, 1))


def test_limit(monkeypatch: pytest.MonkeyPatch):
    assert 0 < cache_limit() <= LIMIT
    monkeypatch.setattr(cache_module, "_available_memory", lambda: 400)
    assert cache_limit() == 100


def test_memory_where_the_system_tells_nothing(monkeypatch: pytest.MonkeyPatch):
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert cache_limit() > 0
    monkeypatch.setattr(cache_module.os, "sysconf_names", {})
    assert cache_limit() == 1 << 30
