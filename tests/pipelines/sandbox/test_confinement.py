"""Tried from inside the decoding process: the network, programs, and other people's files."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.sandbox import confinement
from pipelines.sandbox.calls import Limits, run_limited
from tests.conftest import REPOSITORY

ROOMY = Limits(wall_s=60, cpu_s=60, memory_bytes=1 << 30)

HAS_SECCOMP = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
#: What meets a try; on a system that has no such fence, it is let through and a warning says so.
NO_PROCESS = "PermissionError" if HAS_SECCOMP else ""
NO_FILE = "PermissionError" if confinement.landlock_version() else ""


def refused(function: object, *given: object) -> str:
    """The name of the OSError that the function meets; empty: it was let through."""
    try:
        function(*given)  # type: ignore[operator]
    except OSError as error:
        return type(error).__name__
    return ""


def tries() -> dict[str, str]:
    """In the child: what a decoder that was taken over might do."""
    libc = ctypes.CDLL(None, use_errno=True)

    def traced() -> None:
        if libc.ptrace(16, os.getppid(), 0, 0) < 0:  # PTRACE_ATTACH
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    return {
        "connect": refused(socket.create_connection, ("127.0.0.1", 9), 1),
        "udp": refused(socket.socket, socket.AF_INET, socket.SOCK_DGRAM),
        "unix": refused(socket.socket, socket.AF_UNIX),
        "program": refused(subprocess.run, ["/bin/true"]),
        "shell": "" if os.system("exit 0") == 0 else "PermissionError",
        "fork": refused(os.fork),
        "trace": refused(traced),
        "kill the parent": refused(os.kill, os.getppid(), signal.SIGTERM),
    }


def opens(paths: list[str], flags: int) -> dict[str, str]:
    """In the child."""
    found = {}
    for path in paths:
        found[path] = refused(lambda path=path: os.close(os.open(path, flags)))
    return found


def test_no_network_and_no_other_process() -> None:
    assert set(run_limited(ROOMY, tries).values()) == {NO_PROCESS}


def test_what_a_decoder_needs_still_works() -> None:
    """Threads, memory, and an abort of its own, which is told from a refusal."""
    assert run_limited(ROOMY, threads_and_memory) == 3


def threads_and_memory() -> int:
    import threading

    found: list[int] = []
    workers = [threading.Thread(target=found.append, args=(n,)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return len(found)


def test_only_the_file_of_the_call_can_be_read(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.write_text("x")
    other.write_text("x")
    (tmp_path / "link").symlink_to(other)
    secrets = ["/etc/passwd", f"/proc/{os.getpid()}/environ", str(REPOSITORY / "README.md")]
    paths = [str(other), str(tmp_path / "link"), *secrets]
    limits = ROOMY.of_files(mine, tmp_path / "link")
    found = run_limited(limits, opens, [str(mine), *paths], os.O_RDONLY)
    assert found == {str(mine): "", **dict.fromkeys(paths, NO_FILE)}
    again = run_limited(ROOMY.of_files(other), opens, [str(mine), str(other)], os.O_RDONLY)
    assert again == {str(mine): NO_FILE, str(other): ""}


def test_a_file_exchanged_for_a_link_leads_nowhere(tmp_path: Path) -> None:
    film, secret = tmp_path / "film.mp4", tmp_path / "secret"
    film.write_text("film")
    secret.write_text("secret")
    limits = ROOMY.of_files(film)
    film.unlink()
    film.symlink_to(secret)  # after it was listed, before it is opened
    assert run_limited(limits, opens, [str(film)], os.O_RDONLY) == {str(film): NO_FILE}


def test_only_the_folder_of_the_call_can_be_written(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    source = tmp_path / "film.mp4"
    source.write_text("film")
    limits = ROOMY.of_files(source, writes=(mine,))
    wanted = [str(mine / "clip"), str(other / "clip"), "/tmp/clip-of-a-test", str(source)]
    found = run_limited(limits, opens, wanted, os.O_CREAT | os.O_RDWR)
    assert list(found.values()) == ["", NO_FILE, NO_FILE, NO_FILE]
    assert (other / "clip").exists() == (NO_FILE == "")


def test_a_kernel_that_lacks_a_fence_is_said_once() -> None:
    """Here a filter of this test takes Landlock away, as an old kernel or a container would."""
    program = (
        "import logging, platform\n"
        "from pipelines.sandbox import confinement\n"
        "import os\n"
        "from pipelines.media import MediaError\n"
        "from pipelines.sandbox.calls import Limits, run_limited\n"
        "logging.basicConfig(format='%(message)s')\n"
        "confinement._REFUSED[platform.machine()] = {'landlock_create_ruleset': 444}\n"
        "confinement.deny_network_and_processes(but_programs=True)\n"
        "for _ in range(2):\n"
        "    print(run_limited(Limits(60, 60, 1 << 30), len, 'abc'))\n"
        "    try:\n"
        "        run_limited(Limits(60, 60, 1 << 30), os._exit, 0)\n"
        "    except MediaError:\n"
        "        pass  # the next call starts another\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert ended.stdout == "3\n3\n", ended.stderr
    assert ended.stderr.count("does not let a decoding process give up its files (Landlock)") == 1


def test_the_child_knows_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of stores and servers are given to programs in their environment."""
    program = (
        "import os\n"
        "from pipelines.sandbox.calls import Limits, run_limited\n"
        "print(run_limited(Limits(60, 60, 1 << 30), os.getenv, 'AWS_SECRET_ACCESS_KEY'))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": "planted", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "None\n", ended.stderr


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("but_programs", [False, True])
def test_a_filter_s_jumps_stay_inside_it(machine: str, but_programs: bool) -> None:
    """Each way through it ends at a verdict, also where this machine cannot run it."""
    program = confinement.filter_program(machine, 7, but_programs)
    assert len(program) % 8 == 0 and len(program) // 8 < 4096
    count = len(program) // 8
    for at in range(count):
        code, then, otherwise = program[8 * at], program[8 * at + 2], program[8 * at + 3]
        if code != 0x06:  # not a verdict
            assert at + 1 + max(then, otherwise) < count
    assert program[-8] == 0x06
