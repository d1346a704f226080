"""The settings, and the checks that do not need the library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from macp_auth import Secret, SignerMisconfigured, SignerUnavailable, read_private_file

_MAX_PIN_BYTES = 1024

Text = Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"\S")]


class PKCS11Settings(Struct, frozen=True, kw_only=True):
    """The settings. None is a secret: the PIN is read from its file at each login."""

    module: Annotated[
        Text,
        Meta(
            description="The PKCS#11 library's path.",
            extra={"expects": "the path of a PKCS#11 library"},
        ),
    ]
    token_label: Annotated[
        Text,
        Meta(description="The token's label.", extra={"expects": "the label of a token"}),
    ]
    token_serial: Annotated[
        Text | None,
        Meta(
            description="The token's serial number, if several have the label.",
            extra={"expects": "the serial number of a token"},
        ),
    ] = None
    pin_file: Annotated[
        Text,
        Meta(
            description="The path of a file with the user PIN.",
            extra={"expects": "the path of a file with the user PIN"},
        ),
    ]
    key_label: Annotated[
        Text,
        Meta(
            description="The first key's label; later ones add `@` and their creation time.",
            extra={"expects": "the label of a private key"},
        ),
    ]
    reopen: Annotated[
        Literal["on", "off"],
        Meta(
            description="Whether each refresh opens the token again.",
            extra={"expects": "on or off"},
        ),
    ] = "on"


def prepare(settings: PKCS11Settings) -> PKCS11Settings:
    """Check only the files: a library that is loaded before a fork can't be used after it.

    Raises:
        SignerMisconfigured: the library can't be read, or the PIN file is unusable.
    """
    readable = os.access(settings.module, os.R_OK)
    if not readable or Path(settings.module).is_dir():
        raise SignerMisconfigured(
            f"MACP_AUTH_PKCS11_MODULE: there is no file {settings.module} that can be read"
        )
    try:
        read_pin(settings.pin_file)
    except SignerUnavailable as error:
        raise SignerMisconfigured(str(error)) from None
    return settings


def read_pin(path: str) -> Secret[str]:
    """Return the file's content, without the line end.

    Raises:
        SignerUnavailable: it can't be read.
        SignerMisconfigured: others can access it, or its content is not a PIN.
    """
    subject = f"MACP_AUTH_PKCS11_PIN_FILE: {path}"
    content = read_private_file(path, subject, max_bytes=_MAX_PIN_BYTES)
    try:
        pin = content.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        pin = ""
    if not pin or "\n" in pin:
        raise SignerMisconfigured(f"{subject} must hold the PIN on one line, and nothing else")
    return Secret(pin)
