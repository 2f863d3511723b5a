"""Kills at every pass of every failpoint of what `publishing.py` publishes, and disk errors at the
first (and every later) one.

    python -m tests.chaos.kill_everywhere --folder /tmp/f [--only checkpoints]

Each case is a child forked from this process, which has imported everything and started no thread:
armed, it publishes and is killed (or gets its error); what a reader sees then must be whole; a
second child, unarmed, publishes again, and must end with what an undisturbed one makes. Prints one
JSON object: {"struck": {failpoint: {"kill": n, "ENOSPC": n, "EIO": n}}, "violations": [...]}.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines import failpoints
from tests.chaos.failpoints_in_source import FAILPOINTS
from tests.chaos.publishing import PUBLISHING, Publishing

KILL, ERRORS = "kill", ("ENOSPC", "EIO")
MOST_PASSES = 60


def in_a_child(work: Callable[[], Any], fault: str = "") -> tuple[int, Any]:
    """(exit status as of os.waitstatus_to_exitcode, what `work` gave as JSON)."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(read)
        code = 1
        try:
            os.environ[failpoints.VARIABLE] = fault
            failpoints.armed.cache_clear()
            answer = json.dumps(work()).encode()
            os.write(write, answer)
            code = 0
        except OSError as error:
            code = 3 if fault and error.filename == fault.partition(":")[0] else 1
            if code == 1:
                traceback.print_exc()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), json.loads(said) if said else None


def cases(publishing: Publishing, expected: Any, folder: Path) -> Iterator[tuple[str, str, str]]:
    """(failpoint, kind of fault, what went wrong or "") of every pass that it makes."""
    for failpoint in FAILPOINTS:
        for kind in (KILL, *ERRORS):
            for nth in range(1, MOST_PASSES if kind == KILL else 2):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                fault = f"{failpoint}:{nth}" + ("" if kind == KILL else f"={kind}")
                struck, wrong = one_case(publishing, expected, folder, fault)
                if not struck:
                    break
                yield failpoint, kind, wrong


def one_case(publishing: Publishing, expected: Any, folder: Path, fault: str) -> tuple[bool, str]:
    """(whether the fault came to pass, what went wrong or "")."""
    where = f"{publishing.name}, {fault}"
    code, _ = in_a_child(lambda: publishing.run(folder), fault)
    if code not in (0, 3, -signal.SIGKILL):
        return True, f"{where}: ended with {code}"
    if code == 0:
        return False, ""

    def look_and_go_on() -> Any:
        violations = publishing.violations(folder)
        publishing.run(folder)
        return [violations, publishing.result(folder)]

    again, found = in_a_child(look_and_go_on)
    if again:
        return True, f"{where}: a reader, or running it again, ends with {again}"
    violations, result = found
    if violations:
        return True, f"{where}: a reader then sees {violations}"
    return True, "" if result == expected else f"{where}: {_difference(result, expected)}"


def _difference(found: Any, expected: Any) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        names = sorted(k for k in found.keys() | expected.keys() if found.get(k) != expected.get(k))
        return f"other files than undisturbed: {names}"
    return f"{found}, undisturbed {expected}"


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", default="")
    given = parser.parse_args(argv)
    gc.freeze()  # children copy fewer pages
    struck: dict[str, Counter[str]] = {}
    violations: list[str] = []
    for publishing in PUBLISHING:
        if given.only in ("", publishing.name):
            violations += all_cases(publishing, given.folder / publishing.name, struck)
    return {"struck": struck, "violations": violations}


def all_cases(publishing: Publishing, place: Path, struck: dict[str, Counter[str]]) -> list[str]:
    """What went wrong; `struck` counts what came to pass, by failpoint and kind."""
    undisturbed = place / "undisturbed"
    undisturbed.mkdir(parents=True)

    def publish() -> Any:
        publishing.run(undisturbed)
        return publishing.result(undisturbed)

    code, expected = in_a_child(publish)
    if code:
        return [f"{publishing.name}: undisturbed, it ends with {code}"]
    violations = []
    for failpoint, kind, wrong in cases(publishing, expected, place / "disturbed"):
        struck.setdefault(failpoint, Counter())[kind] += 1
        violations += [wrong] if wrong else []
    return violations


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
