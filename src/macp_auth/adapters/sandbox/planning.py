"""What the service asks of a signer before it listens: its declarations, and the state that it prepares.

Each question has a process of its own, which ends with the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from macp_auth.adapters.sandbox.connection import ENDED, ProcessEnded
from macp_auth.adapters.sandbox.hosted import Opening, greeted
from macp_auth.adapters.sandbox.messages import (
    Description,
    Diagnose,
    Found,
    Nothing,
    Prepare,
    State,
)
from macp_auth.adapters.sandbox.process import Launch, SignerProcess, selected
from macp_auth.domain.diagnosis import Finding
from macp_auth.domain.errors import ConfigurationError, SignerUnavailable
from macp_auth.domain.policy import RotationPolicy
from macp_auth.domain.redaction import shown
from macp_auth.domain.secret import Secret

T = TypeVar("T")

PREPARE_SECONDS = 60.0
"""For a ``prepare`` that asks a backend, on a machine that is slow or throttled."""


class Hosted(Struct, frozen=True):
    """A prepared signer, for every worker: pickled and passed through a pipe."""

    launch: Launch
    description: Description
    state: Secret[bytes]
    more_variables: tuple[str, ...]
    """Those that the operator adds."""
    first: SignerProcess | None = None
    """The first process of the only worker, which loads while another one prepares; it can't be pickled."""

    def opening(self, environ: Mapping[str, str]) -> Opening:
        """Return what a process needs to open it, with its variables from ``environ``.

        They are those that a worker has: without the secret ones, which only ``prepare`` gets.
        """
        secret = {variable.name for variable in self.description.variables if variable.secret}
        variables = declared(self.description, environ, self.more_variables)
        return Opening(
            self.launch,
            {name: value for name, value in variables.items() if name not in secret},
            self.state,
            self.description.concurrent_signs,
            self.first,
        )


def declared(
    description: Description, environ: Mapping[str, str], more: tuple[str, ...] = ()
) -> dict[str, str]:
    """Return the variables that the signer declares, and ``more``; a star stands for any end of a name.

    Raises:
        ConfigurationError: one is not UTF-8.
    """
    names = (
        f"{description.prefix}*",
        *(variable.name for variable in description.variables),
        *description.environment,
        *more,
    )
    variables = selected(environ, names)
    for name, value in variables.items():
        try:
            (name + value).encode()
        except UnicodeEncodeError:
            raise ConfigurationError(
                f"{shown(name)} is not UTF-8, so no signer can get it; correct or unset it"
            ) from None
    return variables


async def described(launch: Launch) -> Description:
    """Return what the signer declares.

    Raises:
        SignerMisconfigured: it can't be loaded.
    """
    return await _answer(launch, lambda process: greeted(process, launch.name))


async def prepared(
    launch: Launch,
    environ: Mapping[str, str],
    more_variables: tuple[str, ...],
    check: Callable[[Description], None],
    first: SignerProcess | None = None,
) -> Hosted:
    """Have the signer check its settings, and return it with the state that it prepared.

    Args:
        launch: how to start its process.
        environ: the variables of the service.
        more_variables: names of variables that it gets besides those that it declares.
        check: raises an error if its declarations can't be accepted.
        first: the first process of the only worker, to start at the same time.

    Raises:
        SignerMisconfigured: it can't be loaded, or its settings are invalid.
    """

    async def ask(process: SignerProcess) -> Hosted:
        if first is not None:
            first.spawn()
        description = await greeted(process, launch.name)
        check(description)
        environment = declared(description, environ, more_variables)
        state = await process.connection.call("prepare", Prepare(environment), State)
        return Hosted(launch, description, Secret(state.state), more_variables, first)

    try:
        return await _answer(launch, ask)
    except BaseException:
        if first is not None:
            await first.kill()
        raise


async def diagnosed(
    hosted: Hosted, environ: Mapping[str, str], policy: RotationPolicy, found: Callable[[Finding], None]
) -> None:
    """Call ``found`` with each finding of the signer's own diagnosis.

    Raises:
        SignerError: the diagnosis failed.
    """

    async def ask(process: SignerProcess) -> None:
        await greeted(process, hosted.launch.name)
        process.connection.on(
            "finding", lambda params: found(msgspec.json.decode(params, type=Found).finding)
        )
        opening = hosted.opening(environ)
        request = Diagnose(opening.environment, opening.state.reveal(), policy)
        await process.connection.call("diagnose", request, Nothing)

    await _answer(hosted.launch, ask)


async def _answer(launch: Launch, ask: Callable[[SignerProcess], Coroutine[Any, Any, T]]) -> T:
    """Return what ``ask`` returns for a new process."""
    process = SignerProcess(launch)
    try:
        process.spawn()
        await process.connect()
        return await process.within(PREPARE_SECONDS, ask(process))
    except TimeoutError:
        raise SignerUnavailable(
            f"the signer {launch.name!r} did not end its preparation within {PREPARE_SECONDS:g} s",
            reason="deadline",
        ) from None
    except ProcessEnded as error:
        if process.connection.lost != ENDED:  # it is killed, and that is no news
            raise
        await process.kill()
        raise ProcessEnded(f"{error} (exit status {process.exit_status})") from None
    finally:
        await process.kill()
