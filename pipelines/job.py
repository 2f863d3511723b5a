"""How every job ends: one JSON line on success, one plain line and exit 2 on a wrong request."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pipelines.config import RequestError
from pipelines.redaction import guard_what_is_said, without_secrets

EXIT_DONE, EXIT_FAILED, EXIT_WRONG_REQUEST = 0, 1, 2
EXIT_TERMINATED = 128 + signal.SIGTERM

Main = Callable[[Sequence[str]], dict[str, Any] | None]


class JobEnded(Exception):
    """A job cannot or shall not go on, for a reason that is no mistake in the code: one line, no
    traceback, and `exit_code`."""

    exit_code = EXIT_FAILED


def run(main: Main) -> NoReturn:
    """Runs a job's `main(argv)` and leaves the process with the contract's exit code.

    What `main` returns is printed as the last line of standard output, as one JSON object
    (nothing is printed for None, e.g. after `--dry-run`). Everything else a job says goes to
    standard error. Exit codes (design: "Command lines"): 0 done, 2 the request was wrong (one
    line, no traceback), 143 it was asked to stop (SIGTERM), 1 anything else.
    """
    prepare_process()
    # As Ctrl-C: what was started is stopped and what is half-written is removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    try:
        result = main(sys.argv[1:])
        sys.stdout.flush()
    except RequestError as error:
        line = " ".join(str(error).splitlines())  # a file's name may hold a line break
        say(f"error: {line}")
        sys.exit(EXIT_WRONG_REQUEST)
    except JobEnded as error:
        say(f"error: {' '.join(str(error).splitlines())}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("interrupted; run the same command again to go on")
        sys.exit(EXIT_FAILED)
    except SystemExit as ended:
        if ended.code == EXIT_TERMINATED:
            say("stopped as asked; run the same command again to go on")
        raise
    except BrokenPipeError:
        # Whoever read the answer has seen enough (`| head`); Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except OSError as error:
        if not is_disk_full(error):
            raise
        where = f" ({error.filename})" if error.filename else ""
        say(f"error: the disk is full{where}; free some space and run the same command to go on")
        sys.exit(EXIT_FAILED)
    if result is not None:
        sys.stderr.flush()
        print(json.dumps(result, sort_keys=False), flush=True)
    sys.exit(EXIT_DONE)


def prepare_process() -> None:
    """Settings that must stand before the heavy libraries are imported."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    guard_what_is_said()
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("WDS_SECURE", "1")  # webdataset: no pipe: URLs, no pickles


def is_disk_full(error: BaseException) -> bool:
    """No space, or none of it for this user."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def say(line: str) -> None:
    """One line for the person watching, on standard error. No address in it says its password."""
    print(without_secrets(line), file=sys.stderr, flush=True)
