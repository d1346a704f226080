"""base64url without padding (RFC 7515, section 2), used by JWS and JWK."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode


def base64url(data: bytes) -> str:
    """Return ``data`` in base64url, without padding."""
    return base64url_bytes(data).decode("ascii")


def base64url_bytes(data: bytes) -> bytes:
    """Return ``data`` in base64url, without padding, as ASCII bytes."""
    return urlsafe_b64encode(data).rstrip(b"=")


def from_base64url(text: str) -> bytes:
    """Return the octets that :func:`base64url` encodes as ``text``.

    Raises:
        ValueError: there are none. Padding, other characters and unused bits are not ignored.
    """
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(data) != text:
        raise ValueError("not base64url")
    return data
