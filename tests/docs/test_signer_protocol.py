"""The page on the signer protocol has the messages, codes and limits of the code."""

from __future__ import annotations

import asyncio
import json
import typing
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from macp_auth.adapters import jose
from macp_auth.adapters.hookspecs import MAX_SIGN_SECONDS
from macp_auth.adapters.sandbox import messages, planning, process
from macp_auth.adapters.sandbox.connection import CANCELLED_SECONDS
from macp_auth.adapters.sandbox.hosted import (
    CLOSE_SECONDS,
    HEARTBEAT_SECONDS,
    MAX_BACK_OFF_SECONDS,
    SILENT_SECONDS,
    START_SECONDS,
)
from macp_auth.adapters.sandbox.serving import Method
from macp_auth.adapters.well_formed import MAX_VERSIONS
from macp_auth.domain.keys import ECPublicJWK, thumbprint
from macp_auth.domain.statistics import _MAX_NUMBERS
from macp_auth.entrypoints.settings import Settings
from macp_auth.entrypoints.signers.process import PluginProcess
from tests.docs.pages import blocks, plain, read, rows, section

PAGE = read("docs/signer-protocol.md")


async def _methods() -> Mapping[str, Method]:
    return PluginProcess("acme").server._methods


METHODS = asyncio.run(_methods())
NOTIFICATIONS: dict[str, Any] = {"cancel": messages.Cancel, "finding": messages.Found}


def lines(heading: str) -> list[Any]:
    """The messages that the page shows below ``heading``."""
    (shown,) = [block for block in blocks(section(PAGE, heading)) if block.language == "jsonl"]
    return [json.loads(line) for line in shown.text.splitlines()]


def assert_is(kind: Any, shown: Any) -> None:
    """What is shown has all members of ``kind``, and no others."""
    assert json.loads(messages.encode(msgspec.json.decode(json.dumps(shown), type=kind))) == shown


@pytest.mark.parametrize("name", METHODS)
def test_the_messages_of_each_method_are_the_codes(name: str) -> None:
    """The service sends what is shown, and reads it."""
    request, *notified, reply = lines(name)
    assert request["method"] == name
    assert_is(messages.Call, {**request, "params": {}})
    assert_is(METHODS[name].params, request["params"])
    for message in notified:
        assert_is(NOTIFICATIONS[message["method"]], message["params"])
    assert reply.keys() == {"jsonrpc", "id", "result"}
    assert reply["id"] == request["id"]
    assert_is(typing.get_type_hints(METHODS[name].function)["return"], reply["result"])


def test_the_page_has_no_other_method() -> None:
    """Each has a heading of its own."""
    methods = PAGE.partition("## Methods\n")[2].partition("\n## ")[0]
    headings = [line.removeprefix("### ") for line in methods.splitlines() if line.startswith("### ")]
    assert sorted(headings) == sorted([*METHODS, "cancel"])
    (cancel,) = lines("cancel")
    assert_is(messages.Cancel, cancel["params"])


def test_the_frame_is_one() -> None:
    """Length and text."""
    (shown,) = [block for block in blocks(section(PAGE, "Transport")) if block.language == "text"]
    frame = messages.frame(messages.Call("ping", messages.raw(messages.Nothing()), 259))
    assert shown.text == f"{frame[:4].hex(' ')} {frame[4:].decode()}\n"
    assert f"these {len(frame)} bytes" in PAGE


def test_the_example_of_a_signature_verifies() -> None:
    """An author can try a program's own parts on it."""
    (version,) = lines("key_versions")[1]["result"]["versions"]
    request, reply = lines("sign")
    key = jose.load({**version["public_jwk"], "alg": version["algorithm"]})
    assert isinstance(key, jose.PublicKey)
    signing_input = b64decode(request["params"]["input"], validate=True)
    assert jose.verifies(key, signing_input, b64decode(reply["result"]["signature"], validate=True))
    assert request["params"]["kid"] == version["kid"]
    assert version["kid"] == thumbprint(msgspec.convert(version["public_jwk"], ECPublicJWK))


def test_the_error_and_the_codes_are_the_codes() -> None:
    """All of them."""
    (reply,) = lines("Errors")
    assert_is(messages.Failure, reply["error"])
    codes = {int(row[0]): plain(row[1]) for row in rows(section(PAGE, "Errors"))}
    assert codes == {code.value: code.name for code in messages.Code}


def test_the_members_of_hello_are_the_codes() -> None:
    """With their defaults."""
    documented = {plain(row[0]): plain(row[2]) for row in rows(section(PAGE, "hello"))}
    fields = msgspec.structs.fields(messages.Description)
    assert documented == {field.name: "" if field.required else json.dumps(field.default) for field in fields}
    text = " ".join(section(PAGE, "hello").split())
    assert f"in seconds; at most {MAX_SIGN_SECONDS:g}" in text
    assert f"the version of this protocol: {messages.PROTOCOL}" in text


def test_the_limits_and_times_are_the_codes() -> None:
    """Each number of the page."""
    limits = {row[0]: row[1].split()[0] for row in rows(section(PAGE, "Limits"))}
    memory = msgspec.structs.fields(Settings)
    assert limits == {
        "size of a frame": str(messages.MAX_FRAME_BYTES),
        "memory": str(next(field.default for field in memory if field.name == "signer_memory_mib")),
        "descriptors": str(process.DESCRIPTORS),
        "core dump": "0",
        "lines of output": str(process.LINES),
    }
    text = " ".join(PAGE.split())
    for said in (
        f"{process.LINES} in {process.LINES_SECONDS} s | up to {process._LINE_CHARS} characters",
        f"answers no `ping` or `cancel` for {SILENT_SECONDS:g} s",
        f"still needs a reply within {CANCELLED_SECONDS:g} s",
        f"Every {HEARTBEAT_SECONDS:g} s. Reply",
        f"a pause of up to {MAX_BACK_OFF_SECONDS:g} s",
        f"together may take {START_SECONDS:g} s",
        f"with the reply, or after {planning.PREPARE_SECONDS:g} s",
        f"or after {CLOSE_SECONDS:g} s",
        f"At most {MAX_VERSIONS} versions",
        f"at most {_MAX_NUMBERS}, with names",
    ):
        assert said in text
    environment = section(PAGE, "Limits")
    assert all(f"`{name}`" in environment for name in process.COMMON_VARIABLES)
