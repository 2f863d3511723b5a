"""A source's bytes as a local file, wherever the footage lies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pipelines.curation.config import CurateConfig
from pipelines.curation.footage_copies import FootageCopies
from pipelines.media.errors import MediaError
from pipelines.records import Source, source_id_of
from pipelines.storage import absolute_uri, is_local


def copies_of(config: CurateConfig) -> FootageCopies:
    """This machine's copies of the footage of one dataset."""
    most_bytes = config.resources.footage_copies_mib << 20
    return FootageCopies(config.footage, absolute_uri(config.dataset), most_bytes)


@contextlib.contextmanager
def at_hand(config: CurateConfig, source: Source, path: str) -> Iterator[str]:
    """The file itself, or a copy of the object, for the block.

    Raises MediaError: `unreadable`, or `changed_while_read` when its bytes are no longer those
    that the source is named after.
    """
    if is_local(path):
        yield path
        return
    asked = copies_of(config).copy_of(path, source.size_bytes, source_id=source.source_id)
    with contextlib.ExitStack() as stack:
        try:
            copy, found = stack.enter_context(asked)
        except FileNotFoundError:
            raise MediaError("unreadable", "gone, or closed to us") from None
        if source_id_of(found.sha256) != source.source_id:
            raise MediaError("changed_while_read")
        yield str(copy)
