"""What each of Ray's processes imports when it starts, some dozen of them for every job."""

from __future__ import annotations

import subprocess
import sys

PARSES_A_GRAMMAR_WHEN_IMPORTED = "rfc3987_syntax"


def test_ray_imports_no_parser_of_grammars() -> None:
    """`jsonschema`, which Ray imports, takes it where it is installed: 1.7 s for each process, and
    nearly half of a short job's time."""
    program = f"import ray, sys; sys.exit({PARSES_A_GRAMMAR_WHEN_IMPORTED!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
