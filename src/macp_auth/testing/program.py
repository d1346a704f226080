"""The subject of the checks for a signer that is no Python plugin, but a program."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from macp_auth.adapters.blocking_call import BlockingCall
from macp_auth.adapters.hookspecs import API_VERSION, SignerPlugin
from macp_auth.adapters.sandbox.hosted import HostedSigner, Opening
from macp_auth.adapters.sandbox.limits import Limits
from macp_auth.adapters.sandbox.messages import Description
from macp_auth.adapters.sandbox.planning import described, prepared
from macp_auth.domain.errors import ConfigurationError
from macp_auth.domain.secret import Secret
from macp_auth.domain.signer import Signer
from macp_auth.entrypoints.environment import PREFIX, read_settings
from macp_auth.entrypoints.settings import Settings
from macp_auth.entrypoints.signers.hosted import check_description, launch_of, more_variables
from macp_auth.testing.subject import NO_LIMIT, SignerSubject

NOT_OF_PROGRAMS = {
    "state-travels": "a program's state is bytes",
    "quiet-repr": "a program has no repr",
    "prints-nothing": "a program's output is for the log",
    "statistics-are-numbers": "the service takes the numbers of a program when they come, and drops others",
    "nothing-grows": "a program's descriptors and threads are its own",
    "nothing-is-left": "the service ends the program",
}
"""The checks that see nothing of a program, and why."""
_KIT_DECIDES = Limits(sign_seconds=60, read_seconds=60, close_seconds=60)
"""The kit has shorter limits of its own, and names what reached them."""


class ProgramSubject(SignerSubject):
    """A program that speaks the signer protocol (docs/signer-protocol.md), started for each signer.

    Args:
        environ: the variables that configure it, with MACP_AUTH_SIGNER and MACP_AUTH_SIGNER_COMMAND.

    Raises:
        ConfigurationError: a variable is invalid.
        SignerError: the program can't be started, or does not answer ``hello`` well.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        settings = read_settings(Settings, PREFIX, environ)
        if settings.signer is None or settings.signer_command is None:
            raise ConfigurationError("MACP_AUTH_SIGNER and MACP_AUTH_SIGNER_COMMAND must be set")
        description = asyncio.run(described(launch_of(settings.signer, settings)))
        super().__init__(_plugin(description), environ)

    async def prepare(self) -> bytes:
        """Return what the program needs to open its signer, with the state that it prepared."""
        settings = read_settings(Settings, PREFIX, self.environ)
        launch, more = launch_of(self.plugin.name, settings), more_variables(settings)
        preparing = BlockingCall(
            lambda: asyncio.run(prepared(launch, self.environ, more, check_description)), "prepare"
        )
        hosted = await preparing.result_async(NO_LIMIT)
        return pickle.dumps(Secret(hosted.opening(self.environ)))


def _plugin(description: Description) -> SignerPlugin:
    """Return what the host would know if the program were a plugin."""
    return SignerPlugin(
        name=description.name,
        api_version=API_VERSION,
        durable=description.durable,
        settings=_settings(description),
        settings_prefix=description.prefix,
        prepare=_prepares_itself,
        open=_open,
        environment=tuple(description.environment),
        sign_seconds=description.sign_seconds,
        concurrent_signs=description.concurrent_signs,
    )


def _settings(description: Description) -> type[Struct]:
    """Return a type with a field for each variable, so that the checks know the secrets."""
    fields: list[tuple[str, Any, None]] = []
    for number, variable in enumerate(description.variables):
        kind: Any = Secret[str] if variable.secret else str
        field = Annotated[kind | None, Meta(extra={"variable": variable.name})]
        fields.append((f"variable_{number}", field, None))
    return msgspec.defstruct("ProgramSettings", fields, frozen=True)


def _prepares_itself(_: object) -> None:
    raise NotImplementedError


def _open(opening: Secret[Opening]) -> Signer:
    return HostedSigner(opening.reveal(), _KIT_DECIDES)
