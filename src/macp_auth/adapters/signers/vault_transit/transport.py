"""hvac on the event loop, over aiohttp.

hvac's methods put a request together and return what their adapter does with it; this one's answers
are awaited. hvac's own transport is a requests session: it blocks, takes three times the CPU of a call,
and may read proxies and passwords from the environment. A thread for it costs two switches more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from hvac import utils
from hvac.adapters import Adapter

from macp_auth.domain.errors import SignerUnavailable

MAX_ANSWER_BYTES = 4 * 2**20
"""A key with a thousand versions has less than one of them."""
_MULTIPLE_CHOICES, _BAD_REQUEST, _TOO_MANY_REQUESTS, _SERVER_ERROR = 300, 400, 429, 500


class AsyncAdapter(Adapter):  # type: ignore[misc]  # hvac is untyped
    """Sends hvac's requests through a session; JSON comes back decoded, as from hvac's own.

    Args:
        base_uri: where Vault is.
        token: what to present; empty, nothing is.
        session: lends the connections to use now, for one request.
        namespace: Vault's, if not the root.
        server_hostname: the name that Vault's certificate must have, if not that of the address.
    """

    def __init__(
        self,
        *,
        base_uri: str,
        token: str,
        session: Callable[[], AbstractAsyncContextManager[aiohttp.ClientSession]],
        namespace: str | None,
        server_hostname: str | None,
        **_unused: object,
    ) -> None:
        self._base_uri = base_uri.rstrip("/")
        self._session = session
        self._server_hostname = server_hostname
        self._headers = {"X-Vault-Request": "true", "Content-Type": "application/json"}
        if token:
            self._headers["X-Vault-Token"] = token
        if namespace:
            self._headers["X-Vault-Namespace"] = namespace

    def get_login_token(self, response: Mapping[str, Any]) -> str:
        """Return the token of a login's answer."""
        token: str = response["auth"]["client_token"]
        return token

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        **_unused: object,
    ) -> Any:
        """Return the decoded answer; None if there is none, or it is no JSON.

        Raises:
            SignerUnavailable: the answer is a redirect, which is not followed: a token must not be sent
                to another host; or it is too long; or it is an error that is not Vault's.
            hvac.exceptions.VaultError: the answer is an error.
            aiohttp.ClientError, TimeoutError: there is no answer.
        """
        async with (
            self._session() as session,
            session.request(
                method,
                f"{self._base_uri}{url}?{urlencode(params)}" if params else f"{self._base_uri}{url}",
                data=None if json is None else msgspec.json.encode(json),
                headers=self._headers,
                server_hostname=self._server_hostname,
                allow_redirects=False,
                auto_decompress=False,  # none was asked for, and a little can become a lot
            ) as response,
        ):
            content = await _read(response)
        answer = _decoded(content)
        if response.status >= _BAD_REQUEST:
            errors = _errors(answer)
            if errors is None and not _may_be_of_a_proxy(response.status):
                raise SignerUnavailable(
                    f"it is not Vault that answers: status {response.status} without Vault's words",
                    reason="bad-answer",
                )
            text = content.decode(errors="replace")
            utils.raise_for_error(method, url, response.status, text, errors, text, answer)
        if response.status >= _MULTIPLE_CHOICES:
            raise SignerUnavailable(
                "Vault redirects: this node is a standby that does not forward; "
                "give the address of the active node, or of a load balancer that finds it",
                reason="standby",
            )
        return answer


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = b""
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            response.close()  # or the rest would be read, to have the connection again
            raise SignerUnavailable(
                f"Vault's answer has more than {MAX_ANSWER_BYTES} bytes", reason="bad-answer"
            )
    return content


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _errors(answer: Any) -> list[str] | None:
    errors = answer.get("errors") if isinstance(answer, dict) else None
    return [str(error) for error in errors] if isinstance(errors, list) else None


def _may_be_of_a_proxy(status: int) -> bool:
    """Whether what stands in front of Vault says so in its own words, when Vault is away or busy."""
    return status == _TOO_MANY_REQUESTS or status > _SERVER_ERROR
