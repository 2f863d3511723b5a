"""What a process gives up for good before it reads a stranger's file: the network, other programs,
other files.

Two of Linux's own means, neither of which needs root, nor can be undone:

- seccomp (the whole process): no sockets, no program or process is started, no other process is
  signalled, traced or read, no namespaces, mounts or kernel modules. Such a call fails with EPERM.
- Landlock (the calling thread, and what it starts): of all files only the program's own, those
  named and those below the folders named can be opened, and only below the folders named written.

A link put in a file's place between its listing and its opening leads nowhere: what is allowed is
the file that lay there, not its name. Where the kernel lacks either means, the other still holds.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_PR_SET_NO_NEW_PRIVS = 38  # <linux/prctl.h>
_libc = ctypes.CDLL(None, use_errno=True)

# --- seccomp -----------------------------------------------------------------------------------

_SECCOMP_SET_MODE_FILTER, _TSYNC = 1, 1  # <linux/seccomp.h>
_RET_ALLOW, _RET_ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # <linux/bpf_common.h>
_AT_NUMBER, _AT_ARCHITECTURE, _AT_FIRST_ARGUMENT = 0, 4, 16  # struct seccomp_data
_CLONE_THREAD = 0x00010000
_X32_BIT = 0x40000000

#: Numbers of system calls <asm/unistd.h>: those refused, in whatever way they are called.
_REFUSED = {
    "x86_64": {
        "socket": 41, "connect": 42, "accept": 43, "bind": 49, "listen": 50, "socketpair": 53,
        "accept4": 288, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "ptrace": 101,
        "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "pidfd_open": 434,
        "pidfd_getfd": 438, "pidfd_send_signal": 424, "tkill": 200, "rt_sigqueueinfo": 129,
        "rt_tgsigqueueinfo": 297, "unshare": 272, "setns": 308, "mount": 165, "umount2": 166,
        "open_tree": 428, "move_mount": 429, "fsopen": 430, "pivot_root": 155, "chroot": 161,
        "open_by_handle_at": 304, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
        "io_uring_setup": 425, "add_key": 248, "request_key": 249, "keyctl": 250,
        "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246,
        "kexec_file_load": 320, "reboot": 169, "swapon": 167, "acct": 163, "quotactl": 179,
    },
    "aarch64": {
        "socket": 198, "connect": 203, "accept": 202, "bind": 200, "listen": 201,
        "socketpair": 199, "accept4": 242, "execve": 221, "execveat": 281, "ptrace": 117,
        "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "pidfd_open": 434,
        "pidfd_getfd": 438, "pidfd_send_signal": 424, "tkill": 130, "rt_sigqueueinfo": 138,
        "rt_tgsigqueueinfo": 240, "unshare": 97, "setns": 268, "mount": 40, "umount2": 39,
        "open_tree": 428, "move_mount": 429, "fsopen": 430, "pivot_root": 41, "chroot": 51,
        "open_by_handle_at": 265, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
        "io_uring_setup": 425, "add_key": 217, "request_key": 218, "keyctl": 219,
        "init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104,
        "kexec_file_load": 294, "reboot": 142, "swapon": 224, "acct": 89, "quotactl": 60,
    },
}  # fmt: skip
_STARTS = frozenset(("fork", "vfork", "execve"))
#: (audit architecture, seccomp, clone, clone3, kill, tgkill)
_NUMBERS = {
    "x86_64": (0xC000003E, 317, 56, 435, 62, 234),
    "aarch64": (0xC00000B7, 277, 220, 435, 129, 131),
}


def deny_network_and_processes(*, but_programs: bool = False) -> bool:
    """For this process, all its threads, and for good. False where the kernel has no seccomp.

    `but_programs`: it may start programs, which inherit all that this process gave up.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _NUMBERS:
        return False
    program = filter_program(machine, os.getpid(), but_programs)
    buffer = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    return (
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        and _libc.syscall(_NUMBERS[machine][1], _SECCOMP_SET_MODE_FILTER, _TSYNC, described) == 0
    )


def filter_program(machine: str, pid: int, but_programs: bool) -> bytes:
    """The program the kernel runs at each system call: a chain of `if this call: refuse`."""
    architecture, _, clone, clone3, kill, tgkill = _NUMBERS[machine]
    refuse = _step(_RETURN, _RET_ERRNO | errno.EPERM)
    steps = [
        _step(_LOAD, _AT_ARCHITECTURE),
        _step(_JUMP_EQUAL, architecture, then=1),
        refuse,
        _step(_LOAD, _AT_NUMBER),
    ]
    if machine == "x86_64":  # the same calls have second numbers, with this bit
        steps += [_step(_JUMP_ANY_BIT, _X32_BIT, otherwise=1), refuse]
    refused = {n: c for n, c in _REFUSED[machine].items() if not but_programs or n not in _STARTS}
    for number in refused.values():
        steps += [_step(_JUMP_EQUAL, number, otherwise=1), refuse]
    # Its flags lie in memory, where a filter cannot look: libraries then call clone instead.
    steps += [_step(_JUMP_EQUAL, clone3, otherwise=1), _step(_RETURN, _RET_ERRNO | errno.ENOSYS)]
    first = _step(_LOAD, _AT_FIRST_ARGUMENT)
    own_threads = [first, _step(_JUMP_ANY_BIT, _CLONE_THREAD, then=1), refuse]
    if not but_programs:
        steps += [_step(_JUMP_EQUAL, clone, otherwise=4), *own_threads, _step(_RETURN, _RET_ALLOW)]
    for number in (kill, tgkill):  # to itself, as abort() does
        to_itself = [first, _step(_JUMP_EQUAL, pid, then=1), refuse, _step(_RETURN, _RET_ALLOW)]
        steps += [_step(_JUMP_EQUAL, number, otherwise=4), *to_itself]
    return b"".join([*steps, _step(_RETURN, _RET_ALLOW)])


def _step(code: int, operand: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """struct sock_filter; the jumps are numbers of steps to leave out."""
    return struct.pack("HBBI", code, then, otherwise, operand)


# --- Landlock ----------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_PATH_BENEATH, _VERSION = 1, 1  # <linux/landlock.h>
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_REGULAR = 1 << 5, 1 << 8
_ALL_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # by version of the interface
_TRUNCATE = 1 << 14
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _REMOVE_FILE | _MAKE_REGULAR | _TRUNCATE
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_SYSTEM: tuple[str, ...] = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system", "/sys/fs/cgroup"),
)


def landlock_version() -> int:
    """0 where the kernel has none."""
    if sys.platform != "linux":
        return 0
    return max(0, _libc.syscall(_CREATE_RULESET, None, 0, _VERSION))


def confine_thread_to(
    reads: Iterable[str | Path], writes: Iterable[str | Path], programs: Iterable[str] = ()
) -> bool:
    """This thread opens nothing but the program's own files, `reads` (files, or all below a
    folder), and below the folders `writes`; it executes nothing but `programs`. False where the
    kernel has no Landlock.

    What does not exist is left out. Raises OSError when the kernel refuses the rules.
    """
    version = landlock_version()
    if not version:
        return False
    handled = _ALL_RIGHTS[min(version, max(_ALL_RIGHTS))]
    attributes = struct.pack("Q", handled)
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    try:
        for path in program_files():
            _allow(ruleset, path, _READ & handled, follow=True)
        for program in programs:
            _allow(ruleset, program, (_READ | _EXECUTE) & handled, follow=True)
        _allow(ruleset, "/dev/null", _READ | _WRITE_FILE)
        for file in reads:
            _allow(ruleset, file, _READ)
        for folder in writes:
            _allow(ruleset, folder, _WRITE & handled)
        _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def program_files() -> Sequence[str]:
    """The interpreter, the installed packages, and our own: what code needs to run."""
    rooms = [str(Path(__file__).resolve().parents[2] / room) for room in ("pipelines", "model")]
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return [*_SYSTEM, sys.prefix, sys.base_prefix, *packages, *rooms]


def loaders() -> list[str]:
    """What the kernel starts in the place of a program that has shared libraries."""
    places = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
    return [path for path in places if os.path.exists(path)]


def _allow(ruleset: int, path: str | Path, rights: int, *, follow: bool = False) -> None:
    """A link at the end of a stranger's path is not followed: where it leads stays forbidden."""
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, opened)
        _checked(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
    finally:
        os.close(opened)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
