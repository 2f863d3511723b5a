"""Secrets in addresses: found before they are written down, and blacked out where they are said.

An address of a store, a database or a server can carry a password (`s3://key:secret@bucket`) or
be a key by itself (`https://...?X-Amz-Signature=...`). What a job is asked for goes into the
dataset, the checkpoints, MLflow, logs and the list of processes, so a job refuses such an address
(`refuse_secrets`); they belong into the environment, or a file that the store's client reads.
`without_secrets` is for words that others wrote: exceptions and log lines of libraries.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from types import TracebackType

BLACKED_OUT = "***"

#: scheme://user:password@host, scheme://token@host
_USER = re.compile(r"(?P<kept>\b[a-z][a-z0-9+.-]*://)(?P<secret>[^\s/?#'\"<>]+)@", re.IGNORECASE)
#: Parameters of an address, and settings in words, that hold a key.
_NAMES = (
    r"x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|awsaccesskeyid"
    r"|sig|signature|(?:access_|auth_|session_|refresh_|id_)?token|api_?key|key|access_?key(?:_?id)?"
    r"|secret(?:_?(?:access_?)?key)?|client_?secret|password|passwd|pwd|credential"
)
_PARAMETER = re.compile(rf"(?P<kept>[?&;](?:{_NAMES})=)(?P<secret>[^\s&;'\"<>]+)", re.IGNORECASE)
_VARIABLE = re.compile(r"(PASSWORD|USERNAME|TOKEN|SECRET|CREDENTIALS?|KEY)$", re.IGNORECASE)
_HEADER = re.compile(
    r"(?P<kept>\b(?:authorization['\"]?\s*[:=]\s*['\"]?)?(?:bearer|basic)\s+)"
    r"(?P<secret>[\w.~+/=-]{8,})",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """The text with `***` in place of passwords, signatures and tokens in addresses."""
    for pattern in (_USER, _PARAMETER, _HEADER):
        end = "@" if pattern is _USER else ""
        text = pattern.sub(rf"\g<kept>{BLACKED_OUT}{end}", text)
    return text


def holds_secret(text: str) -> bool:
    """Whether an address in the text carries one."""
    return any(
        found["secret"] != BLACKED_OUT
        for pattern in (_USER, _PARAMETER)
        for found in pattern.finditer(text)
    )


def names_secret(variable: str) -> bool:
    """Whether the environment variable of this name holds one, or half of one."""
    return _VARIABLE.search(variable) is not None


def guard_what_is_said() -> None:
    """From now on this process's log lines and last words hold no secret in an address."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(f, _Blackening) for f in handler.filters):
            handler.addFilter(_Blackening())
    sys.excepthook = _last_words


class _Blackening(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_secrets(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        if record.exc_text:
            record.exc_text = without_secrets(record.exc_text)
        return True


def _last_words(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    print(without_secrets(text), end="", file=sys.stderr, flush=True)
