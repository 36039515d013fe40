"""The gate that all requests pass, by itself."""

import threading
import time

import pytest

from widespectrum.chat.workers import StoppedError
from widespectrum.generators.api_gate import Gate


def passes(gate, seconds):
    """Whether the gate lets a request through within so many seconds."""
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    try:
        gate.enter(stop)
    except StoppedError:
        return False
    finally:
        timer.cancel()
    return True


def entered(width):
    gate = Gate(width)
    for _ in range(width):
        assert passes(gate, 1)
    return gate


def test_it_is_as_wide_as_it_is_made():
    gate = entered(2)
    assert not passes(gate, 0.3)
    gate.leave(None)
    assert passes(gate, 1)


@pytest.mark.parametrize("pauses", [(60.0, 0.0), (0.0, 60.0)])
def test_of_several_pauses_the_longest_holds(pauses):
    gate = entered(2)
    for pause in pauses:
        gate.leave(pause)
    assert not passes(gate, 0.3)


def test_a_pause_ends_and_leaves_it_narrower_until_enough_went_well():
    gate = entered(4)
    for pause in (0.1, None, None, None):
        gate.leave(pause)
    started = time.monotonic()
    inside = 0
    while passes(gate, 0.5):
        inside += 1
    # Halved to two, and widened by nearly half at each of three that went well.
    assert inside == 3
    assert time.monotonic() - started < 5
    for _ in range(8):
        gate.leave(None)
        assert passes(gate, 1)
    assert passes(gate, 1)
    assert not passes(gate, 0.3)
