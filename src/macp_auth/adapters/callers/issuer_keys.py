"""The public keys of the issuers whose JWTs are accepted.

They are read in the background, and no request waits for them. A key is accepted after its issuer has removed
it for at most

- 310 s with ``jwks_url``: :data:`REFRESH_SECONDS`, and two fetches of at most :data:`FETCH_SECONDS`;
- :data:`FILE_REFRESH_SECONDS`, and the time of a reading, with ``jwks_file``;
- :data:`MAX_AGE_SECONDS` while they can't be read. Then all tokens of the issuer are refused.

If an issuer signs with a key sooner than that after publishing it, its first tokens are refused until an
unknown key ID has caused a fetch: for at most :data:`REQUEST_INTERVAL_SECONDS` and the time of the fetch.

Privileges: to connect to ``jwks_url``, to read the files. Nobody but its owner may write ``jwks_file``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import structlog

from macp_auth.adapters import jose
from macp_auth.adapters.callers.file import Issuer
from macp_auth.adapters.input_file import Custody, FileUnusable, input_file
from macp_auth.adapters.name_resolution import DaemonResolver
from macp_auth.domain.json_objects import unique_members
from macp_auth.domain.keys import Algorithm, is_kid
from macp_auth.domain.redaction import conceal, shown

REFRESH_SECONDS = 300.0
"""Between two fetches. As the MACP runtime and PyJWT's client; what the issuer proposes is not read."""
FILE_REFRESH_SECONDS = 2.0
"""Between two readings of a file. As the callers file."""
REQUEST_INTERVAL_SECONDS = 10.0
"""Between two fetches that unknown key IDs cause: anyone can send one."""
MAX_AGE_SECONDS = 3600.0
"""After the last good reading. As the stale grace of the MACP runtime: an issuer may be down for an upgrade,
and who blocks the fetches can use a removed key no longer than this."""
CONNECT_SECONDS = 3.0
FETCH_SECONDS = 5.0
"""For all of a fetch. Both are the MACP runtime's."""
MAX_BYTES = 256 * 1024
MAX_KEYS = 100
"""100 keys of RSA-4096 have 80 KB."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds; after failures
_MAX_CA_BYTES = 4 * 2**20  # all the public authorities are 0.2 MiB
_MAX_TOKEN_BYTES = 16 * 1024
_OK = 200
_USES = ("sig", "jwt-svid")  # SPIFFE's Trust Domain and Bundle, section 4.2.2, has its own word
_KEPT = "cannot read issuer keys; keeping the last good ones"
_NONE = "cannot read issuer keys; refusing its tokens"
_log = structlog.get_logger()

KeyId = tuple[str | None, Algorithm]
Keys = Mapping[KeyId, jose.PublicKey]
"""By key ID and algorithm. A key without competitor for its algorithm is also there by None."""


class _Unusable(Exception):
    """The keys can't be read; the text is for the log."""


class IssuerKeys:
    """The keys of one issuer.

    Args:
        issuer: where they are.
        clock: returns monotonic seconds.
    """

    def __init__(self, issuer: Issuer, clock: Callable[[], float] = time.monotonic) -> None:
        self.issuer = issuer
        self._clock = clock
        self._interval = REFRESH_SECONDS if issuer.jwks_file is None else FILE_REFRESH_SECONDS
        self._keys: Keys = {}
        self._digest = b""
        self._read_at: float | None = None
        self._began_at = 0.0
        self._failures = 0
        self._failure: tuple[str, str] | None = None
        """What was logged last."""
        self._requested = asyncio.Event()
        self.attempted = asyncio.Event()
        """Set after the first attempt to read the keys, successful or not."""

    @property
    def age(self) -> float | None:
        """Seconds since the keys were last read; None if never."""
        return None if self._read_at is None else self._clock() - self._read_at

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    def find(self, kid: str | None, algorithm: Algorithm) -> jose.PublicKey | None:
        """Return the issuer's key with this ID; the same object as long as the issuer publishes it.

        A token need not have a key ID (RFC 7515, section 4.1.4). Then it is the only key of the algorithm; if
        there are several, none is tried. A key that is not found is asked for in the background.
        """
        age = self.age
        key = None if age is None or age > MAX_AGE_SECONDS else self._keys.get((kid, algorithm))
        if key is None:
            self._requested.set()
        return key

    async def run(self) -> NoReturn:
        """Keep the keys fresh."""
        while True:
            self._requested.clear()
            await self.refresh()
            await self._pause()

    async def refresh(self) -> None:
        """Read the keys once. If they can't be read, keep the last ones and log each new reason once."""
        self._began_at = self._clock()
        try:
            await self._read()
        except _Unusable as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - what aiohttp lets through; the keys must stay fresh
            self._failed(type(error).__name__, error)
        else:
            if self._failures:
                _log.info("issuer keys read again", issuer=self.issuer.name)
            self._failures, self._failure = 0, None
            self._read_at = self._began_at  # a key that was removed since then may have been seen
        self.attempted.set()

    async def _read(self) -> None:
        data = await _content_of(self.issuer)
        if (digest := hashlib.sha256(data).digest()) == self._digest:
            return
        found = await asyncio.to_thread(_keys_of, data)
        # An equal key stays the same object, so that the tokens that it verified stay remembered.
        self._keys = {id_: old if (old := self._keys.get(id_)) == key else key for id_, key in found.items()}
        self._digest = digest
        kids = sorted({kid for kid, _ in found if kid is not None})
        _log.info("issuer keys", issuer=self.issuer.name, kids=kids)

    def _failed(self, text: str, unexpected: Exception | None = None) -> None:
        self._failures += 1
        if self.age is None or self.age > MAX_AGE_SECONDS:
            self._keys, self._digest = {}, b""
        failure = (_KEPT if self._keys else _NONE, text)
        if failure != self._failure:
            _log.error(failure[0], issuer=self.issuer.name, detail=text, exc_info=unexpected)
        self._failure = failure

    async def _pause(self) -> None:
        """Wait for the next attempt: an interval, a back-off after failures, or until one is requested."""
        pause = self._interval
        if self._failures:
            pause = min(pause, _LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures - 1, 10))
        pause *= random.uniform(0.8, 1)  # noqa: S311 - spreads the load of replicas; not a secret
        least = min(pause, max(0.0, self._began_at + REQUEST_INTERVAL_SECONDS - self._clock()))
        await asyncio.sleep(least)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause - least):
                await self._requested.wait()


class Issuers:
    """The keys of all issuers of the callers file."""

    def __init__(self) -> None:
        self._in_use: dict[Issuer, IssuerKeys] = {}
        self._changed = asyncio.Event()

    @property
    def in_use(self) -> tuple[IssuerKeys, ...]:
        """The keys of each issuer of the last call of :meth:`use`."""
        return tuple(self._in_use.values())

    def use(self, issuers: Sequence[Issuer]) -> tuple[IssuerKeys, ...]:
        """Return the keys of these issuers; those of an issuer that is in use like this are kept."""
        self._in_use = {issuer: self._in_use.get(issuer) or IssuerKeys(issuer) for issuer in issuers}
        self._changed.set()
        return self.in_use

    async def attempted(self) -> None:
        """Wait until the keys of each issuer were read once, or could not be.

        It takes 5 s at most, while :meth:`run` runs.
        """
        for keys in self.in_use:
            await keys.attempted.wait()

    async def run(self) -> NoReturn:
        """Keep the keys of the issuers in use fresh."""
        tasks: dict[IssuerKeys, asyncio.Task[NoReturn]] = {}
        try:
            while True:
                self._changed.clear()
                for keys in tasks.keys() - set(self.in_use):
                    tasks.pop(keys).cancel()
                for keys in self.in_use:
                    if keys not in tasks:
                        tasks[keys] = asyncio.create_task(keys.run())
                await self._changed.wait()
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)


async def fault_of(issuer: Issuer) -> str | None:
    """Read the issuer's keys once, and return why they can't be read; None if they can."""
    try:
        _keys_of(await _content_of(issuer))
    except _Unusable as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - what aiohttp lets through
        return type(error).__name__
    return None


# --- sources ------------------------------------------------------------------------------------


async def _content_of(issuer: Issuer) -> bytes:
    return await (_fetched(issuer) if issuer.jwks_file is None else _file(issuer.jwks_file))


async def _file(path: str) -> bytes:
    try:
        return (await input_file(Path(path), Custody.TRUSTED_KEYS, MAX_BYTES).read_async()).data
    except FileUnusable as error:
        raise _Unusable(f"jwks_file {error}") from None


async def _fetched(issuer: Issuer) -> bytes:
    assert issuer.jwks_url is not None  # noqa: S101 - the callers file is checked
    try:
        async with (
            asyncio.timeout(FETCH_SECONDS),
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=await _tls(issuer), resolver=DaemonResolver()),
                timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Kubernetes sends no JWK Set to a client that accepts application/json only.
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            ) as session,
            session.get(
                issuer.jwks_url,
                headers=await _authorization(issuer),
                allow_redirects=False,  # the token must not reach another host, and its keys are not trusted
                auto_decompress=False,  # none was asked for, and a little can become a lot
            ) as response,
        ):
            if response.status != _OK:
                raise _Unusable(f"jwks_url answers with status {response.status}")
            return await _body(response)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _Unusable(f"jwks_url: {shown(_words(error))}") from None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    content = b""
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > MAX_BYTES:
            response.close()  # or the rest would be read
            raise _Unusable(f"jwks_url answers with more than {MAX_BYTES} bytes")
    return content


async def _tls(issuer: Issuer) -> ssl.SSLContext:
    if issuer.ca_file is None:
        return await asyncio.to_thread(_context, None)
    try:
        content = await input_file(Path(issuer.ca_file), Custody.PUBLIC, _MAX_CA_BYTES).read_async()
        return await asyncio.to_thread(_context, content.data.decode("ascii", "replace"))
    except FileUnusable as error:
        raise _Unusable(f"ca_file {error}") from None
    except (ssl.SSLError, ValueError):
        raise _Unusable("ca_file is no PEM file of certificates") from None


@lru_cache(maxsize=8)  # 100 authorities take 50 ms, in which no other thread runs
def _context(authorities: str | None) -> ssl.SSLContext:
    """Return what trusts these authorities in PEM; None for the system's, which are read once."""
    # Not create_default_context(): that one writes TLS's secrets where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authorities is None:
        context.load_default_certs()
    else:
        context.verify_flags |= (
            ssl.VERIFY_X509_PARTIAL_CHAIN
        )  # what is given is trusted, be it an intermediate
        context.load_verify_locations(cadata=authorities)
    return context


_MEANINGS: dict[type[Exception], str] = {
    aiohttp.ConnectionTimeoutError: f"no connection within {CONNECT_SECONDS:g} s",
    TimeoutError: f"no complete answer within {FETCH_SECONDS:g} s",
    aiohttp.ClientConnectorDNSError: "its name can't be resolved",
    aiohttp.ClientSSLError: "TLS fails",
}
"""The first that fits counts."""


async def _authorization(issuer: Issuer) -> dict[str, str]:
    if issuer.bearer_token_file is None:
        return {}
    try:
        content = await input_file(Path(issuer.bearer_token_file), Custody.JWT, _MAX_TOKEN_BYTES).read_async()
    except FileUnusable as error:
        raise _Unusable(f"bearer_token_file {error}") from None
    token = content.data.decode("ascii", "replace").strip()
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise _Unusable("bearer_token_file holds no token")
    conceal(token)
    return {"Authorization": f"Bearer {token}"}


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        words = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else "wrong name"
        return f"its certificate is not accepted: {words}"
    for kind, text in _MEANINGS.items():
        if isinstance(error, kind):
            return text
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return type(error).__name__  # the texts of aiohttp have the URL


# --- keys ---------------------------------------------------------------------------------------


def _keys_of(data: bytes) -> dict[KeyId, jose.PublicKey]:
    """Return the keys in a JWK Set that verify RS256 or ES256; others are ignored (RFC 7517, section 5).

    Raises:
        _Unusable: it is no JWK Set, has too many keys, no usable key, or two of which either may be meant.
    """
    try:
        document = json.loads(data, object_pairs_hook=unique_members)
    except (ValueError, RecursionError):
        raise _Unusable("not JSON with unique names") from None
    jwks = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(jwks, list):
        raise _Unusable("not a JWK Set")
    if len(jwks) > MAX_KEYS:
        raise _Unusable(f"more than {MAX_KEYS} keys")
    keys: dict[KeyId, jose.PublicKey] = {}
    usable: list[jose.PublicKey] = []
    for jwk in jwks:
        if (key := _usable(jwk)) is None:
            continue
        usable.append(key)
        if (kid := jwk.get("kid")) is not None and keys.setdefault((kid, jose.algorithm_of(key)), key) != key:
            raise _Unusable("two keys of one algorithm have the same kid")
    if not usable:
        raise _Unusable("no public key for RS256 of at least 2048 bits or for ES256")
    for algorithm in Algorithm:
        if len(only := [key for key in usable if jose.algorithm_of(key) is algorithm]) == 1:
            keys[None, algorithm] = only[0]
    return keys


def _usable(jwk: Any) -> jose.PublicKey | None:
    if not isinstance(jwk, dict) or "d" in jwk:  # a private key that is published is everybody's
        return None
    kid, operations = jwk.get("kid"), jwk.get("key_ops", ["verify"])
    if kid is not None and not (isinstance(kid, str) and is_kid(kid)):
        return None
    if jwk.get("use", "sig") not in _USES or not (isinstance(operations, list) and "verify" in operations):
        return None
    try:
        key = jose.load({name: value for name, value in jwk.items() if name != "use"})
    except jose.InvalidJWK:
        return None
    assert not isinstance(key, jose.PrivateKey)  # noqa: S101 - it has no member d
    return key
