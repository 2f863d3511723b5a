"""Object stores answer late, in part, or not at all: what is tried again, and what is said then.

Credentials and endpoints come from the environment that each store's own tools read: AWS_* (with
AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL for other S3-compatible stores), GOOGLE_* (with
STORAGE_EMULATOR_HOST for a stand-in). They are never put into a job's description: the dashboard
shows it. Every machine of a cluster is given its own, by its role, its secrets or its service.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pipelines.config import RequestError
from pipelines.job import JobEnded

Answer = TypeVar("Answer")

#: The client sends a request twice at once; that is done `TRIES` times, with pauses that double:
#: about half a minute where nobody listens.
CLIENT_TRIES = 2
TRIES = 6
FIRST_PAUSE_S = 0.5
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
READ_TIMEOUT_VARIABLE = "I2VGEN_STORE_TIMEOUT_S"

_NOT_THERE = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
_REFUSALS = frozenset(
    (
        *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"),
        *("TokenRetrievalError", "DefaultCredentialsError", "RefreshError"),
    )
)
_REFUSED_CODES = (401, 403)
_OF_THIS_DISK = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS))
_OVERTAKEN = ("pre-condition", "precondition", "ConditionalRequestConflict")


class StoreUnreachable(JobEnded, OSError):
    """A store did not answer, or not in full, however often it was asked. One line."""

    def __init__(self, number: int, words: str, *of_ray: str) -> None:
        super().__init__(number, words, *of_ray)

    def __str__(self) -> str:
        return str(self.args[1])


class Overtaken(FileExistsError):
    """Another writer was there first: nothing was written."""


def filesystem_of(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URI, and the path in it. Raises ImportError and ValueError."""
    import fsspec

    protocol = uri.partition("://")[0] if "://" in uri else "file"
    # Others write and remove here too: a listing is true for the moment it is made.
    options: dict[str, Any] = {} if protocol == "file" else {"use_listings_cache": False}
    if protocol in ("s3", "s3a"):
        options |= _s3_options()
    elif protocol in ("gs", "gcs") and os.environ.get("STORAGE_EMULATOR_HOST"):
        options["token"] = "anon"
        # Read when gcsfs is imported; asks for the kind of a bucket by gRPC, which stand-ins lack.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    filesystem, root = fsspec.core.url_to_fs(uri, **options)
    if protocol in ("s3", "s3a"):
        filesystem.retries = 2  # of a body that breaks off; requests are repeated below it
    return filesystem, str(root)


def _s3_options() -> dict[str, Any]:
    read_timeout_s = float(os.environ.get(READ_TIMEOUT_VARIABLE, READ_TIMEOUT_S))
    options: dict[str, Any] = {
        "config_kwargs": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": read_timeout_s,
            "retries": {"mode": "standard", "max_attempts": CLIENT_TRIES},
        }
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return options | ({"endpoint_url": endpoint} if endpoint else {})


def patiently(where: str, ask: Callable[[], Answer]) -> Answer:
    """What `ask()` gives, asked again for a while when the store fails in passing.

    Raises StoreUnreachable when it keeps failing, RequestError when access is refused; what is not
    there, and what was read but makes no sense, as `ask` does.
    """
    pause_s = FIRST_PAUSE_S
    for left in reversed(range(TRIES)):
        try:
            return ask()
        except Exception as error:
            if _is_refusal(error):
                raise RequestError(
                    f"{where}: access is refused ({in_words(error)}); check the credentials in "
                    "the environment, on every machine, and what they may do here"
                ) from error
            if not (is_passing(error) or _may_be_short(error)):
                raise
            if not left:
                if is_passing(error):
                    raise _unreachable(where, error) from error
                raise
        time.sleep(pause_s * random.uniform(0.75, 1.25))
        pause_s *= 2
    raise AssertionError("the last attempt returns or raises")


def is_passing(error: BaseException) -> bool:
    """Whether the same request may go well a moment later."""
    if isinstance(error, (RequestError, JobEnded, ValueError, *_NOT_THERE)) or is_overtaken(error):
        return False
    if isinstance(error, OSError):
        return error.errno not in _OF_THIS_DISK and not _is_of_arrow(error)
    return _is_of_client(error)


def is_overtaken(error: BaseException) -> bool:
    """Whether a conditional write found that its condition does not hold."""
    if isinstance(error, FileExistsError) or getattr(error, "code", None) in (409, 412):
        return True
    return _is_of_client(error, OSError) and any(w in str(error) for w in _OVERTAKEN)


def in_words(error: BaseException) -> str:
    """A client's error as part of a line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def is_there(filesystem: Any, path: str) -> bool:
    """fsspec's own `exists` is also False where the store fails to answer."""
    try:
        filesystem.info(path)
    except FileNotFoundError:
        return False
    return True


def remove(filesystem: Any, path: str, but: str = "") -> None:
    """A file and what lies below a folder of that name; fsspec's `rm` takes it for a pattern."""
    names = [name for name in filesystem.find(path) if name != but]
    odd = [name for name in names if any(c in name for c in "*?[")]
    if plain := sorted(set(names) - set(odd)):
        filesystem.rm(plain)  # many with one request
    for name in odd:
        filesystem.rm_file(name)


def _unreachable(where: str, error: BaseException) -> StoreUnreachable:
    return StoreUnreachable(
        errno.EIO,
        f"{where}: the store does not answer as it should ({in_words(error)}), after {TRIES} "
        "attempts; when it does again, run the same command to go on",
    )


def _is_refusal(error: BaseException) -> bool:
    if isinstance(error, PermissionError):
        return True
    code = getattr(error, "code", None)
    return type(error).__name__ in _REFUSALS or (
        _is_of_client(error) and str(code) in map(str, _REFUSED_CODES)
    )


def _may_be_short(error: BaseException) -> bool:
    """What a file says makes no sense: it is damaged, or half of it has come."""
    return isinstance(error, ValueError) or _is_of_arrow(error)


def _is_of_arrow(error: BaseException) -> bool:
    """Parquet's own word for bytes that are not right has no number of the system's."""
    return type(error) is OSError and error.errno is None


def _is_of_client(error: BaseException, *or_of: type[BaseException]) -> bool:
    room = type(error).__module__.partition(".")[0]
    clients = ("botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "requests")
    return room in (*clients, "fsspec", "asyncio", "urllib3") or isinstance(error, or_of)
