"""The rules of the callers file, read again when it changes.

A method of authentication that no caller uses is not imported.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from macp_auth.adapters.blocking_call import BlockingCall
from macp_auth.adapters.callers.file import Callers, read_callers
from macp_auth.adapters.input_file import file_version
from macp_auth.domain.access import AccessRules
from macp_auth.domain.callers import AuthenticatorChain, CallerAuthenticator
from macp_auth.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from macp_auth.adapters.callers.issuer_keys import Issuers

VARIABLE = "MACP_AUTH_CALLERS_FILE"
READ_SECONDS = 10.0
"""100,000 grants take 2 to 8 s to parse; a file system may hang."""


class CallersFile:
    """The callers file.

    Args:
        path: its path; symbolic links are followed.
        audience: of grants that name none.
        max_ttl_seconds: of grants that name none.
    """

    def __init__(self, path: Path, *, audience: str, max_ttl_seconds: int) -> None:
        self._path = path
        self._parse = partial(
            read_callers, path, VARIABLE, audience=audience, max_ttl_seconds=max_ttl_seconds
        )
        self._call = BlockingCall(self._read_if_changed, "callers-file")
        self._seen: object = None
        self._issuers: Issuers | None = None
        self._fetching: asyncio.Task[None] | None = None

    def check(self) -> Callers:
        """Read the file once, and return its content.

        Raises:
            ConfigurationError: it is unusable; the text has the place, the cause and the remedy.
        """
        return self._parse()

    async def read(self) -> AccessRules | None:
        """Return the rules of the file; None if it is as at the last call that returned some.

        Raises:
            ConfigurationError: it is unusable; the text has the place, the cause and the remedy.
        """
        try:
            callers = await self._call.result_async(READ_SECONDS)
        except TimeoutError:
            raise ConfigurationError(
                f"{VARIABLE} can't be read within {READ_SECONDS:g} s; check its file system"
            ) from None
        if callers is None:
            return None
        chain = AuthenticatorChain(self._methods(callers))
        if self._issuers is not None:
            await self._issuers.attempted()  # so that a new issuer's tokens are accepted from the beginning
        return AccessRules(chain, callers.grants, callers.client_certificate_header)

    def failing_issuers(self) -> Mapping[str, bool]:
        """Return whether the keys of each issuer could not be read last time, by its name."""
        issuers = () if self._issuers is None else self._issuers.in_use
        return {keys.issuer.name: keys.failing for keys in issuers}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Stop what fetches the keys of issuers when the context exits."""
        try:
            yield
        finally:
            if self._fetching is not None:
                self._fetching.cancel()
                await asyncio.wait([self._fetching])

    def _read_if_changed(self) -> Callers | None:
        version = file_version(self._path)  # before the file is read: a change in between is read next time
        if version is not None and version == self._seen:
            return None
        callers = self._parse()
        self._seen = version
        return callers

    def _methods(self, callers: Callers) -> Iterator[CallerAuthenticator]:
        """Yield the methods in the order in which they are asked."""
        if callers.spiffe_ids or callers.dns_names:
            from macp_auth.adapters.callers.certificate import CertificateMethod  # noqa: PLC0415

            yield CertificateMethod(callers.spiffe_ids, callers.dns_names, time.time)
            if callers.client_certificate_header is not None:
                from macp_auth.adapters.callers.forwarded import ForwardedCertificateMethod  # noqa: PLC0415

                yield ForwardedCertificateMethod(callers.spiffe_ids, callers.dns_names)
        if callers.jwt_subjects:
            from macp_auth.adapters.callers.issuer_keys import Issuers  # noqa: PLC0415
            from macp_auth.adapters.callers.jwt import JWTMethod  # noqa: PLC0415

            if self._issuers is None:
                self._issuers = Issuers()
                self._fetching = asyncio.create_task(self._issuers.run())
            yield JWTMethod(callers.jwt_subjects, self._issuers.use(callers.issuers), time.time)
        elif self._issuers is not None:
            self._issuers.use(())  # nobody's tokens are accepted: stop fetching keys
        if callers.secrets:
            from macp_auth.adapters.callers.secret import SecretMethod  # noqa: PLC0415

            yield SecretMethod(callers.secrets)
