"""Threads that share one loaded model of every kind: a case is one generation a thread and kind."""

import gc
from pathlib import Path

import pytest

from tests.runtime import sharing

pytestmark = [pytest.mark.fuzz, pytest.mark.backend_free]

THREADS = 16
# The first case exports a model of every kind.
SECONDS = 120
# Caches of tiny models: 1,000 of them are 20 MiB at least, and of a good run nothing stays.
_STREAMS, _GROWN_MIB = 1000, 4


def share(random, folder):
    """Every kind in turn; the threads' calls are drawn anew for each."""
    for kind in sharing.KINDS:
        model = sharing.load(kind)
        sharing.check_threads(model, sharing.draw_calls(kind, random, THREADS), THREADS, each=1)
        if kind in sharing.GENERATING:
            sharing.check_interleaved(model, random)


def abandon(random, folder):
    """Streams of one kind that nobody reads to their end, and the memory after them."""
    kind = random.choice(sharing.GENERATING)
    model = sharing.load(kind)
    for _ in range(_STREAMS // 10):
        sharing.abandon(model, random)
    before = _resident_mib()
    for _ in range(_STREAMS):
        sharing.abandon(model, random)
    grown = _resident_mib() - before
    assert grown < _GROWN_MIB, f"{_STREAMS} abandoned streams of {kind} left {grown:.0f} MiB"
    return kind


def _resident_mib():
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_threads(fuzz):
    fuzz(share, short=1, seconds=SECONDS)


def test_abandoned_streams(fuzz):
    fuzz(abandon, short=1, seconds=SECONDS)
