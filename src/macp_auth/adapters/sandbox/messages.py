"""The messages between the service and the process of a signer: JSON-RPC 2.0, in frames.

A frame is a length of four bytes, big-endian, and so many bytes of JSON. Bytes are base64 in JSON
(RFC 4648, section 4). docs/signer-protocol.md describes the protocol for programs in other languages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from macp_auth.adapters.hookspecs import CONCURRENT_SIGNS, SIGN_SECONDS
from macp_auth.domain.diagnosis import Finding
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.policy import RotationPolicy
from macp_auth.domain.statistics import Distribution

PROTOCOL = 1
"""The version of the protocol. It increases when programs must change."""
MAX_FRAME_BYTES = 8 * 1024 * 1024
"""More than a list of the most key versions that are published (``well_formed.MAX_VERSIONS``)."""
MAX_RESULT_BYTES = MAX_FRAME_BYTES - 1024
LENGTH_BYTES = 4


class Call(Struct, frozen=True, tag_field="jsonrpc", tag="2.0"):
    """A request, or a notification, which has no id."""

    method: str
    params: Raw = Raw(b"{}")
    id: int | UnsetType = UNSET


class Failure(Struct, frozen=True, omit_defaults=True):
    """The error of a reply."""

    code: int
    message: str = ""
    data: FailureData | UnsetType = UNSET


class FailureData(Struct, frozen=True):
    """What a caller may see of an error."""

    reason: str
    """As ``SignerError.reason``."""


class Reply(Struct, frozen=True, omit_defaults=True, tag_field="jsonrpc", tag="2.0"):
    """The result or the error of a request."""

    id: int | None = None
    result: Raw | UnsetType = UNSET
    error: Failure | UnsetType = UNSET
    method: str | UnsetType = UNSET
    """Set in a notification, which is no reply."""
    params: Raw | UnsetType = UNSET


class Code(IntEnum):
    """The codes of errors: the errors of the Signer port, and one for all others."""

    UNAVAILABLE = 1
    REFUSED = 2
    MISCONFIGURED = 3
    UNKNOWN_KID = 4
    FAULT = 5
    """The plugin raised another exception."""
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602


class Variable(Struct, frozen=True, omit_defaults=True):
    """A variable that the signer reads."""

    name: str
    secret: bool = False


class Hello(Struct, frozen=True):
    """The first request's parameters."""

    protocol: int = PROTOCOL


class Description(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The result of ``hello``: what :class:`~macp_auth.SignerPlugin` declares."""

    protocol: int
    name: str
    durable: bool = True
    prefix: str
    """The prefix of its variables."""
    variables: Sequence[Variable] = ()
    environment: Sequence[str] = ()
    sign_seconds: float = SIGN_SECONDS
    concurrent_signs: int = CONCURRENT_SIGNS
    diagnoses: bool = False
    """Whether it has ``diagnose``."""


class Prepare(Struct, frozen=True):
    """The parameters of ``prepare``."""

    environment: Mapping[str, str]


class State(Struct, frozen=True):
    """The result of ``prepare``: opaque bytes, which ``open`` gets in every worker."""

    state: bytes


class Open(Struct, frozen=True):
    """The parameters of ``open``."""

    environment: Mapping[str, str]
    state: bytes


class Nothing(Struct, frozen=True):
    """No parameters, or an empty result."""


class Versions(Struct, frozen=True):
    """The result of ``key_versions``."""

    versions: Sequence[KeyVersion]


class Sign(Struct, frozen=True):
    """The parameters of ``sign``."""

    kid: str
    input: bytes


class Signature(Struct, frozen=True):
    """The result of ``sign``."""

    signature: bytes


class Numbers(Struct, frozen=True):
    """The result of ``statistics``."""

    numbers: Mapping[str, float | Distribution]


class Diagnose(Struct, frozen=True):
    """The parameters of ``diagnose``."""

    environment: Mapping[str, str]
    state: bytes
    policy: RotationPolicy


class Found(Struct, frozen=True):
    """The parameters of the notification ``finding``, one for each while ``diagnose`` runs."""

    finding: Finding


class Cancel(Struct, frozen=True):
    """The parameters of the notification ``cancel``: the request that nobody waits for any more."""

    id: int


encode = msgspec.json.Encoder().encode


def frame(message: Call | Reply) -> bytes:
    """Return ``message`` as a frame."""
    body = encode(message)
    return len(body).to_bytes(LENGTH_BYTES) + body


def raw(params: Any) -> Raw:
    """Return ``params`` encoded, as a part of a message."""
    return Raw(encode(params))


class FrameTooLong(ValueError):
    """The other side announces a frame over :data:`MAX_FRAME_BYTES`."""


class FrameReader:
    """Splits a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the bodies of the frames that ``data`` completes.

        Raises:
            FrameTooLong: a frame is too long.
        """
        if not self._buffer and int.from_bytes(data[:LENGTH_BYTES]) == len(data) - LENGTH_BYTES:
            return [data[LENGTH_BYTES:]]  # one whole frame, as usual
        self._buffer += data
        bodies: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= LENGTH_BYTES:
            length = int.from_bytes(self._buffer[at : at + LENGTH_BYTES])
            if length > MAX_FRAME_BYTES:
                raise FrameTooLong(f"a frame of {length} bytes; at most {MAX_FRAME_BYTES} are read")
            end = at + LENGTH_BYTES + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[at + LENGTH_BYTES : end]))
            at = end
        del self._buffer[:at]
        return bodies
