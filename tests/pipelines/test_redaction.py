"""Passwords in addresses are found, and blacked out wherever a library says them."""

from __future__ import annotations

import logging
import string
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import RequestError, TrackingConfig, parse_request
from pipelines.redaction import guard_what_is_said, holds_secret, without_secrets
from pipelines.storage import Store

SECRET = "pl4nted/S3cret+x"
WITH_SECRET = [
    f"s3://key:{SECRET.replace('/', '%2F')}@bucket/set",
    "https://gh0st@host/path",
    "postgresql://user:pl4nted@db/mlflow",
    f"https://b.s3.amazonaws.com/x.mp4?X-Amz-Date=1&X-Amz-Signature={SECRET}&X-Amz-Expires=9",
    f"https://storage.googleapis.com/b/o?X-Goog-Credential={SECRET}",
    f"https://host/x?sig={SECRET}",
    f"http://host/?token={SECRET}",
    f"redis://h:1/0?password={SECRET}",
]
WITHOUT = [
    "s3://bucket/set",
    "/data/a@b/film.mp4",
    "file:///data/films",
    "http://127.0.0.1:5000",
    "sqlite:////data/mlflow.db",
    "http://mlflow:5000/#/experiments?workflowType=machine_learning",
    "a cat looks @ a dog & sees ?key",
    "mail me: a.b@c.de",
    "https://host/x?version=3&keyframe=9",
]


@pytest.mark.parametrize("text", WITH_SECRET)
def test_a_secret_is_found_and_blacked_out(text: str) -> None:
    assert holds_secret(text)
    said = without_secrets(f"cannot open {text} now")
    assert "pl4nted" not in said and "gh0st" not in said and "***" in said
    assert said.startswith("cannot open ") and said.endswith(" now")
    assert not holds_secret(said)
    assert without_secrets(said) == said


@pytest.mark.parametrize("text", WITHOUT)
def test_nothing_else_is_touched(text: str) -> None:
    assert not holds_secret(text) and without_secrets(text) == text


_WORD = st.text(string.ascii_letters + string.digits + "-._~%!$*+,=:", min_size=1)


@given(st.sampled_from(["s3", "https", "postgresql+psycopg"]), _WORD, _WORD)
def test_no_user_or_password_of_an_address_is_ever_said(scheme: str, user: str, word: str) -> None:
    uri = f"{scheme}://{user}:{word}@host/path"
    assert without_secrets(f"<{uri}>") == f"<{scheme}://***@host/path>"


def test_headers_are_blacked_out() -> None:
    assert "abcdefgh1" not in without_secrets("{'Authorization': 'Bearer abcdefgh1'}")
    assert "abcdefgh1" not in without_secrets("Authorization: Basic abcdefgh1==")


def test_a_job_refuses_to_be_told_a_secret(tmp_path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("uri: https://user:pl4nted@mlflow\n")
    for argv in (["--uri", "https://user:pl4nted@mlflow"], ["--config", str(settings)]):
        with pytest.raises(RequestError, match=r"uri: https://\*\*\*@mlflow") as caught:
            parse_request(TrackingConfig, {"demo": TrackingConfig}, argv, prog="x", description="")
        assert "pl4nted" not in str(caught.value)
    with pytest.raises(RequestError, match="holds a password"):
        Store.open("s3://key:pl4nted@bucket/set")


def test_what_a_library_logs_and_raises_is_blacked_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    handler = logging.StreamHandler(sys.stderr)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        guard_what_is_said()
        guard_what_is_said()  # twice changes nothing
        try:
            raise OSError("no answer from https://u:pl4nted@host")
        except OSError as error:
            logging.getLogger("a.library").exception("GET %s", "http://h/?token=pl4nted")
            sys.excepthook(OSError, error, error.__traceback__)
    finally:
        root.removeHandler(handler)
    said = capsys.readouterr().err
    assert "pl4nted" not in said
    assert said.count("https://***@host") >= 2 and "GET http://h/?token=***" in said
