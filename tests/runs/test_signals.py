"""Signals become requests, and handlers go back where they were."""

import contextlib
import signal
import threading

import pytest

from jaxseg.runs.signals import Interrupted, StopRequest, catch_signals, unwind_on_sigterm

BOTH = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _handlers_are_given_back():
    before = [signal.getsignal(signum) for signum in BOTH]
    yield
    assert [signal.getsignal(signum) for signum in BOTH] == before


@pytest.mark.parametrize("signum", BOTH)
def test_a_signal_sets_the_request(signum):
    with catch_signals() as stop:
        assert not stop
        assert stop.signal is None
        signal.raise_signal(signum)
        assert stop
        assert stop.signal == signum


def test_a_second_ctrl_c_ends_at_once():
    with catch_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_after_sigterm_ends_at_once():
    with catch_signals():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("signum", BOTH)
def test_the_first_signal_is_answered_on_stderr(signum, capfd):
    with catch_signals():
        for _ in range(2 if signum == signal.SIGTERM else 1):
            signal.raise_signal(signum)
    errors = capfd.readouterr().err
    assert errors.count(f"{signum.name}: ") == 1
    with catch_signals():
        pass
    assert not capfd.readouterr().err


def test_sigterm_twice_is_still_one_request():
    with catch_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM


def test_the_handlers_before_are_called_again_afterwards():
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


def test_requests_do_not_share_their_state():
    with catch_signals():
        signal.raise_signal(signal.SIGTERM)
    with catch_signals() as stop:
        assert not stop


def test_outside_the_main_thread_nothing_is_caught_and_nothing_breaks():
    seen = []

    def work():
        with catch_signals() as stop:
            seen.append((bool(stop), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGINT))]


def test_interrupted_says_what_happened_and_what_to_do():
    stop = Interrupted(signal.SIGTERM, 120)
    assert str(stop) == "stopped by SIGTERM at step 120; the same command resumes there"
    assert stop.signal == 15
    assert not isinstance(stop, ValueError | RuntimeError)


def test_a_fresh_request_is_false():
    assert not StopRequest()


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


def test_unwinding_gives_the_handler_back_and_works_outside_the_main_thread():
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
