"""Secrecy: no output shows a secret."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import pickle
import traceback
from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from macp_auth.domain.errors import SignerError, SignerMisconfigured
from macp_auth.domain.redaction import REDACTED
from macp_auth.domain.secret import Secret
from macp_auth.entrypoints.environment import variables
from macp_auth.testing.bench import attempt, new_input, signing_versions
from macp_auth.testing.checks.faults import backend_down_and_back
from macp_auth.testing.checks.keys import offers_a_key
from macp_auth.testing.checks.signatures import unknown_kid
from macp_auth.testing.registry import Nonconformity, Skipped, check
from macp_auth.testing.watched import WatchedSubject

_PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi", "k")
_SHORTEST = 8  # characters; shorter texts match by accident


@check("No repr shows a secret", source="reprs appear in logs and tracebacks", needs=(offers_a_key,))
async def quiet_repr(subject: WatchedSubject) -> None:
    """Search the reprs of all objects that the host has."""
    secrets = _secrets(subject)
    prepared = await subject.prepare()
    state = pickle.loads(prepared)  # noqa: S301 - from this process
    seen = {"the settings": repr(subject.settings()), "what prepare() returns": f"{state!r} {state}"}
    async with subject.opened(prepared) as signer:
        seen["key_versions()"] = repr(await signer.key_versions())
        seen["the signer"] = f"{signer!r} {signer}"
    for what, text in seen.items():
        _must_not_show(text, secrets, f"the repr of {what}", "wrap it in macp_auth.Secret")


@check(
    "Nothing is written to standard output",
    source="the audit log may be there; a library reports to its caller, or to a logger",
    needs=(unknown_kid, backend_down_and_back),
)
async def prints_nothing(subject: WatchedSubject) -> None:
    """Search standard output of a signer's life. Text that is written past sys.stdout is not seen."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        await _live(subject)
    if text.getvalue():
        raise Nonconformity(
            f"{len(text.getvalue())} characters are written to standard output: remove print(), or use "
            "logging"
        )


@check(
    "No log line shows a secret",
    source="many people read logs, and logs are kept",
    needs=(unknown_kid, backend_down_and_back),
)
async def quiet_logs(subject: WatchedSubject) -> None:
    """Search the logs from level INFO, standard output and standard error of a signer's life."""
    secrets = _secrets(subject)
    with _recorded() as record:
        await _live(subject)
    _must_not_show(record(), secrets, "what is logged or printed", "log less")


async def _live(subject: WatchedSubject) -> None:
    """Do what happens to a signer: prepare, open, sign, fail, close."""
    seconds = subject.plugin.sign_seconds
    async with subject.opened() as signer:
        for version in await signing_versions(signer):
            await signer.sign(version.kid, new_input())
        await attempt(signer.sign("no-such-kid", new_input()), "sign()", seconds)
        with contextlib.suppress(Skipped):
            await subject.break_backend()
            await attempt(signer.sign(version.kid, new_input()), "sign()", seconds)
            await attempt(signer.key_versions(), "key_versions()", seconds)
            await subject.restore_backend()


@check(
    "No error shows a secret",
    source="an error's text goes to the log",
    needs=(unknown_kid, backend_down_and_back),
)
async def quiet_errors(subject: WatchedSubject) -> None:
    """Search every error that can be caused, with its causes."""
    secrets = _secrets(subject)
    seconds = subject.plugin.sign_seconds
    async with subject.opened() as signer:
        version = (await signing_versions(signer))[0]
        errors: list[object] = [await attempt(signer.sign("no-such-kid", new_input()), "sign()", seconds)]
        with contextlib.suppress(Skipped):
            await subject.break_backend()
            errors.append(await attempt(signer.sign(version.kid, new_input()), "sign()", seconds))
            errors.append(await attempt(signer.key_versions(), "key_versions()", seconds))
            await subject.restore_backend()
    errors.append(await attempt(signer.sign(version.kid, new_input()), "sign() after aclose()", seconds))
    for error in errors:
        if isinstance(error, SignerError):
            _must_not_show(
                _all_of(error), secrets, f"a {type(error).__name__}", "name what is wrong, never its content"
            )


@check(
    "Invalid settings raise SignerMisconfigured, without their content",
    source="the error is logged when the start fails",
    needs=(offers_a_key,),
)
async def quiet_refusal(subject: WatchedSubject) -> None:
    """Truncate each secret setting, and prepare with it."""
    secret = [
        variable
        for variable in variables(subject.plugin.settings, subject.plugin.settings_prefix)
        if variable.name in subject.environ and "Secret" in str(variable.type)
    ]
    if not secret:
        raise Skipped("no secret setting is set")
    for variable in secret:
        value = subject.environ[variable.name]
        broken = value[: len(value) * 3 // 4]
        try:
            await subject.with_environ({**subject.environ, variable.name: broken}).prepare()
        except SignerMisconfigured as error:
            shown = _all_of(error)
        except (Nonconformity, SignerError) as fault:
            raise Nonconformity(
                f"for an invalid {variable.name}, prepare() must raise SignerMisconfigured, which names the "
                f"variable; {type(fault).__name__}: {fault}"
            ) from None
        else:
            continue  # only the backend may be able to refuse it
        _must_not_show(
            shown,
            [broken, *_private_texts(value)],
            "the error for invalid settings",
            "name only the variable",
        )


def _secrets(subject: WatchedSubject) -> list[str]:
    """Return all secrets, in all usual encodings."""
    found: list[str | bytes] = list(subject.secrets())
    settings = msgspec.structs.astuple(subject.settings())
    found += [value.reveal() for value in settings if isinstance(value, Secret)]
    texts = [text for secret in found for text in _spellings(secret)]
    if not texts:
        raise Skipped("the subject has no secrets")
    return texts


def _spellings(secret: str | bytes) -> Iterator[str]:
    if isinstance(secret, bytes):
        yield secret.hex()
        yield base64.b64encode(secret).decode()
        yield base64.urlsafe_b64encode(secret).decode().rstrip("=")
        yield repr(secret)[2:-1]
        yield str(int.from_bytes(secret))
    else:
        yield secret
        yield repr(secret)[1:-1]
        yield from _private_texts(secret)


def _private_texts(text: str) -> Iterator[str]:
    """Return the private members of a JWK or JWK Set, if ``text`` is one."""
    try:
        document = json.loads(text)
    except ValueError:
        return
    jwks: Collection[Any] = document.get("keys", [document]) if isinstance(document, dict) else []
    for jwk in jwks:
        for member in _PRIVATE_MEMBERS:
            if isinstance(value := jwk.get(member), str):
                yield value
                octets = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
                yield str(int.from_bytes(octets))
                yield octets.hex()


def _must_not_show(text: str, secrets: list[str], what: str, remedy: str) -> None:
    # This version's errors redact credentials themselves; another version's may not.
    if REDACTED in text or any(len(secret) >= _SHORTEST and secret in text for secret in secrets):
        raise Nonconformity(f"{what} shows a secret (not repeated here): {remedy}")


def _all_of(error: BaseException) -> str:
    """Return the traceback, arguments and attributes of ``error`` and of its causes."""
    parts = ["".join(traceback.format_exception(error))]
    chain: BaseException | None = error
    while chain is not None:
        parts += [repr(chain.args), repr(vars(chain))]
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return "\n".join(parts)


@contextlib.contextmanager
def _recorded() -> Iterator[Any]:
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO))
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            yield text.getvalue
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
