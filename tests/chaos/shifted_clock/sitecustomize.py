"""Python imports this by itself when its folder is on the path: `time.time` is then as many seconds
off as the link that I2VGEN_CLOCK names says, from that moment on, in every process of a job.

Ray's own processes that are not Python, the files' times, and `datetime` keep the machine's clock.
"""

import contextlib
import os
import time

LINK = os.environ.get("I2VGEN_CLOCK", "")
machine_time_ns = time.time_ns


def offset_s() -> int:
    """What a link points to is read in one call: never half of it."""
    try:
        offset = int(os.readlink(LINK))
    except FileNotFoundError:
        return 0
    with contextlib.suppress(FileExistsError):
        os.symlink(str(offset), f"{LINK}.seen-by-{os.getpid()}")
    return offset


def shifted_time_ns() -> int:
    return machine_time_ns() + offset_s() * 10**9


def shifted_time() -> float:
    return shifted_time_ns() / 1e9


if LINK:
    time.time_ns, time.time = shifted_time_ns, shifted_time
