"""Prepares the signer of another distribution, or of a program, and checks what it declares."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Mapping

from macp_auth.adapters.hookspecs import MAX_SIGN_SECONDS
from macp_auth.adapters.plugins import available_signers, check_installed
from macp_auth.adapters.sandbox.messages import Description
from macp_auth.adapters.sandbox.planning import Hosted, prepared
from macp_auth.adapters.sandbox.process import Launch, SignerProcess
from macp_auth.domain.errors import ConfigurationError, SignerMisconfigured
from macp_auth.domain.redaction import conceal
from macp_auth.entrypoints.settings import Settings
from macp_auth.entrypoints.signers import process
from macp_auth.entrypoints.signers.declarations import (
    MAX_CONCURRENT_SIGNS,
    environment_fault,
    names_variables,
    prefix_fault,
    variables_fault,
)

_MIB = 1024 * 1024


def hosted_signer(name: str, settings: Settings, environ: Mapping[str, str]) -> Hosted:
    """Return the signer called ``name``, with the state that it prepared.

    From here on, the secrets that it declares are redacted.

    Raises:
        ConfigurationError: a setting is invalid.
        SignerMisconfigured: there is no such signer, or it can't be loaded or prepared.
    """
    return _hosted(launch_of(name, settings), settings, environ, None)


def started_signer(name: str, settings: Settings, environ: Mapping[str, str]) -> Hosted:
    """Like :func:`hosted_signer`, and start the first process if there is only one worker.

    Linux ends it with the calling thread.
    """
    launch = launch_of(name, settings)
    first = SignerProcess(launch) if settings.workers == 1 else None
    return _hosted(launch, settings, environ, first)


def _hosted(
    launch: Launch, settings: Settings, environ: Mapping[str, str], first: SignerProcess | None
) -> Hosted:
    def check(description: Description) -> None:
        check_description(description)
        for variable in description.variables:
            if variable.secret and variable.name in environ:
                conceal(environ[variable.name])

    return asyncio.run(prepared(launch, environ, more_variables(settings), check, first))


def launch_of(name: str, settings: Settings) -> Launch:
    """Return how the process of the signer called ``name`` is started.

    Raises:
        ConfigurationError: a setting is invalid.
        SignerMisconfigured: there is no such signer.
    """
    return Launch(name, _command(name, settings), settings.signer_memory_mib * _MIB)


def _command(name: str, settings: Settings) -> tuple[str, ...]:
    if settings.signer_command is None:
        check_installed(name)
        return sys.executable, "-P", "-m", process.__name__, name
    must = "MACP_AUTH_SIGNER must be the name of the program in MACP_AUTH_SIGNER_COMMAND"
    if settings.signer is None:
        raise ConfigurationError(f"{must}, but it is not set")
    if name in available_signers():
        raise ConfigurationError(f"{must}, but {name!r} is another signer; unset one of the two")
    try:
        command = tuple(shlex.split(settings.signer_command))
    except ValueError as error:
        raise ConfigurationError(f"MACP_AUTH_SIGNER_COMMAND has {str(error).lower()}") from None
    return command


def more_variables(settings: Settings) -> tuple[str, ...]:
    """Return the names of the variables that the operator adds.

    Raises:
        ConfigurationError: one is no name.
    """
    names = tuple(name.strip() for name in (settings.signer_environment or "").split(",") if name.strip())
    if not all(map(names_variables, names)):
        raise ConfigurationError(
            "MACP_AUTH_SIGNER_ENVIRONMENT must be names of variables, separated by commas, such as "
            "SOFTHSM2_CONF,ACME_*"
        )
    return names


def check_description(description: Description) -> None:
    """Check what a signer declares.

    Raises:
        SignerMisconfigured: a part of it can't be accepted.
    """
    for fault in _faults(description):
        raise SignerMisconfigured(
            f"the signer {description.name!r} can't be used: {fault}; upgrade or fix it"
        )


def _faults(description: Description) -> list[str]:
    faults = []
    if fault := prefix_fault(description.prefix):
        faults.append(f"its prefix {fault}")
    if fault := variables_fault(variable.name for variable in description.variables):
        faults.append(f"its {fault}")
    if fault := environment_fault(description.environment):
        faults.append(f"its {fault}")
    if not 0 < description.sign_seconds <= MAX_SIGN_SECONDS:
        faults.append(f"its sign_seconds must be more than 0, and at most {MAX_SIGN_SECONDS:g}")
    if not 1 <= description.concurrent_signs <= MAX_CONCURRENT_SIGNS:
        faults.append(f"its concurrent_signs must be from 1 to {MAX_CONCURRENT_SIGNS}")
    return faults
