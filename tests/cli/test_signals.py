import os
import signal
import threading

import pytest

from braze_export.cli.screen import Screen
from braze_export.cli.signals import INTERRUPTED, TERMINATED, terminated_as_interrupted
from braze_export.cli.stopping import Stopping


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_is_an_interrupt_with_a_code_of_its_own() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"), terminated_as_interrupted():
        with pytest.raises(KeyboardInterrupt):
            terminate()
        raise SystemExit(INTERRUPTED)
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_ends_keep_their_code() -> None:
    with pytest.raises(SystemExit, match="1"), terminated_as_interrupted():
        with pytest.raises(KeyboardInterrupt):
            terminate()
        raise SystemExit(1)
    with pytest.raises(SystemExit, match="130"), terminated_as_interrupted():
        raise SystemExit(INTERRUPTED)


def test_where_ctrl_c_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with terminated_as_interrupted(), pytest.raises(KeyboardInterrupt):
            terminate()
    finally:
        signal.signal(signal.SIGINT, before)


async def test_a_job_of_the_background_is_stopped_by_sigterm_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping = Stopping(Screen())
    try:
        with stopping.listening():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            terminate()
            await stopping.stop.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopping.code == TERMINATED


def test_another_thread_leaves_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def look() -> None:
        with terminated_as_interrupted():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
