"""Signals become stop requests, and handlers are restored."""

import contextlib
import signal
import threading

import pytest

from jaxseg.runs.signals import Interrupted, catch_signals, unwind_on_sigterm

BOTH = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _handlers_are_given_back():
    before = [signal.getsignal(signum) for signum in BOTH]
    yield
    assert [signal.getsignal(signum) for signum in BOTH] == before


@pytest.mark.parametrize("signum", BOTH)
def test_a_signal_sets_the_stop_request(signum):
    with catch_signals() as stop:
        assert not stop
        assert stop.signal is None
        signal.raise_signal(signum)
        assert stop
        assert stop.signal == signum


@pytest.mark.parametrize("first", BOTH)
def test_ctrl_c_after_another_signal_ends_at_once(first):
    with catch_signals() as stop:
        signal.raise_signal(first)
        assert stop.signal == first
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("signum", BOTH)
def test_the_first_signal_is_reported_on_stderr(signum, capfd):
    with catch_signals() as stop:
        for _ in range(2 if signum == signal.SIGTERM else 1):
            signal.raise_signal(signum)
        assert stop.signal == signum
    assert capfd.readouterr().err.count(f"{signum.name}: ") == 1
    with catch_signals() as stop:
        assert not stop
    assert not capfd.readouterr().err
    assert Interrupted(signum, 120).signal == signum


def test_previous_handlers_are_restored():
    calls = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: calls.append(signum))
    try:
        stack = contextlib.ExitStack()
        stop = stack.enter_context(catch_signals())
        signal.raise_signal(signal.SIGTERM)
        assert stop
        with pytest.raises(RuntimeError), stack:  # also where the run fails
            raise RuntimeError
        assert calls == []
        signal.raise_signal(signal.SIGTERM)
        assert calls == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_signals_are_not_caught():
    seen = []

    def work():
        with catch_signals() as stop:
            seen.append((bool(stop), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGINT))]


def test_sigterm_unwinds():
    left = []

    def work():
        with unwind_on_sigterm():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                left.append("cleaned")

    with pytest.raises(SystemExit) as stop:
        work()
    assert stop.value.code == 143
    assert left == ["cleaned"]


def test_unwinding_restores_the_handler():
    calls = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: calls.append(signum))
    try:
        with unwind_on_sigterm():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert calls == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)

    def work():
        with unwind_on_sigterm():
            calls.append("thread")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert calls == [signal.SIGTERM, "thread"]
