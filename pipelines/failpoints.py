"""Places where a test may kill this process, or make the disk fail, to see what is lost: nothing.

    I2VGEN_FAILPOINT=file.before_rename:3          SIGKILL when a process gets there the 3rd time
    I2VGEN_FAILPOINT=file.before_rename:3=ENOSPC   an OSError instead, that time and ever after
    I2VGEN_FAILPOINT_MARK=FILE                     only the process that creates FILE, only once

Workers inherit these variables, and who replaces a killed worker gets to the same place: the mark
lets it pass. Without the first variable a failpoint is one comparison.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from pipelines.config import RequestError

VARIABLE, MARK_VARIABLE = "I2VGEN_FAILPOINT", "I2VGEN_FAILPOINT_MARK"
FORM = re.compile(r"(?P<name>[a-z_.]+):(?P<nth>[1-9][0-9]*)(=(?P<error>E[A-Z0-9]+))?")


@dataclass
class Fault:
    """What is to happen at one failpoint, from its `nth` pass on: an OSError, or None: SIGKILL."""

    name: str
    nth: int
    error: int | None = None
    mark: str = ""
    passes: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def strike(self) -> None:
        if next(self.passes) < self.nth or not self._is_mine():
            return
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error), self.name)
        os.kill(os.getpid(), signal.SIGKILL)

    def _is_mine(self) -> bool:
        if not self.mark:
            return True
        try:
            os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True


def failpoint(name: str) -> None:
    """Nothing, but for the one failpoint that the environment names.

    Raises OSError when that is what was asked for, RequestError when what was asked makes no sense.
    """
    fault = armed()
    if fault is not None and fault.name == name:
        fault.strike()


@cache
def armed() -> Fault | None:
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    match = FORM.fullmatch(text)
    number = getattr(errno, match["error"], None) if match and match["error"] else None
    if match is None or (match["error"] and number is None):
        raise RequestError(f"{VARIABLE}={text}: expected NAME:N or NAME:N=ERRNO (ENOSPC, EIO, ...)")
    return Fault(match["name"], int(match["nth"]), number, os.environ.get(MARK_VARIABLE, ""))
