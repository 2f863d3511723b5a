import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines.media import MediaError
from pipelines.sandbox import calls as sandbox
from pipelines.sandbox import wire
from pipelines.sandbox.calls import Limits, SandboxConfig, SandboxFault, run_limited
from pipelines.storage import sha256_of_bytes

ROOMY = Limits(wall_s=60, cpu_s=60, memory_bytes=1 << 30)


def reason_of(limits: Limits, function, *args) -> str:
    with pytest.raises(MediaError) as caught:
        run_limited(limits, function, *args)
    return caught.value.reason


def test_results_come_back_and_the_child_is_kept() -> None:
    assert run_limited(ROOMY, sha256_of_bytes, b"x") == sha256_of_bytes(b"x")
    assert run_limited(ROOMY, os.getpid) == run_limited(ROOMY, os.getpid) != os.getpid()
    assert (run_limited(ROOMY, np.arange, 3) == [0, 1, 2]).all()


def test_a_hang_is_ended_and_the_next_call_works() -> None:
    started_s = time.monotonic()
    assert reason_of(Limits(0.5, 60, 1 << 30), time.sleep, 60) == "timed_out"
    assert time.monotonic() - started_s < 10
    assert run_limited(ROOMY, len, "abc") == 3


def test_processor_time_is_limited() -> None:
    assert reason_of(Limits(60, 0.5, 1 << 30), pow, 7, 10**9) == "timed_out"


def test_memory_is_limited_per_call_and_given_back() -> None:
    limits = Limits(60, 60, 300 << 20)
    for _ in range(3):
        assert len(run_limited(limits, bytes, 50 << 20)) == 50 << 20
    assert reason_of(limits, bytes, 1 << 30) == "out_of_memory"
    assert run_limited(ROOMY, len, "abc") == 3


def test_a_crash_is_a_reason() -> None:
    assert reason_of(ROOMY, os._exit, 3) == "decoder_died"
    assert reason_of(ROOMY, os.abort) == "decoder_died"
    assert run_limited(ROOMY, len, "abc") == 3


def test_our_own_fault_is_told_apart_from_bad_media() -> None:
    with pytest.raises(SandboxFault, match="ZeroDivisionError"):
        run_limited(ROOMY, divmod, 1, 0)


def test_what_is_no_data_does_not_come_out() -> None:
    with pytest.raises(SandboxFault, match=r"builtins\.set cannot be sent"):
        run_limited(ROOMY, set, "abc")
    assert run_limited(ROOMY, len, "abc") == 3


def says(value: object) -> bytes:
    """An answer of a child that was taken over: whatever it likes, in place of an int."""
    return wire.encode(("result", value))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system",
        says("text where a number is due"),
        wire.encode(("media_error", ("no_such_reason", ""))),
        wire.encode(("media_error", ["broken"])),
        wire.encode(("fault", 3)),
        wire.encode(7),
    ],
)
def test_a_lying_answer_is_refused(answer: bytes) -> None:
    def count() -> int:
        raise AssertionError("never called here")

    with pytest.raises(wire.WireError):
        sandbox.value_of(answer, count)


def test_time_grows_with_the_file() -> None:
    config = SandboxConfig(wall_s=10, wall_s_per_mib=2)
    assert config.limits(0).wall_s == 10
    assert config.limits(5 << 20).wall_s == 20


def test_no_child_outlives_a_killed_parent() -> None:
    program = (
        "import os, sys, time, threading\n"
        "from pipelines.sandbox.calls import Limits, run_limited\n"
        "limits = Limits(60, 60, 1 << 30)\n"
        "print(run_limited(limits, os.getpid), flush=True)\n"
        "run_limited(limits, time.sleep, 60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert _is_alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline_s = time.monotonic() + 10
    while _is_alive(child) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not _is_alive(child)


def _is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
