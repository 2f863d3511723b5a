"""Which tests stay together when several processes share them.

A file stays on one process, for what its tests share. Files that use the same costly fixture of the
whole session stay together as well, so that the demo is made once. (xdist has groups of its own,
by a marker; with pytest 9.2 its version 3.8 no longer sees them.)
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadScopeScheduling

REPOSITORY = Path(__file__).resolve().parents[1]
DEMO = "demo"
#: What a file says that uses such a fixture.
SHARED = {DEMO: "demo: Demo", "logins": "logins: Logins", "chaos": "world: World"}


@cache
def group_of_file(path: str) -> str:
    file = REPOSITORY / path
    text = file.read_text() if file.is_file() else ""
    return next((group for group, says in SHARED.items() if says in text), path)


def group_of(nodeid: str) -> str:
    return group_of_file(nodeid.partition("::")[0])


class ByWhatIsShared(LoadScopeScheduling):  # type: ignore[misc]
    """A process gets one group after another, in the order of collection."""

    def __init__(self, config: Any, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
