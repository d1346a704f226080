"""hvac on the event loop, over aiohttp.

hvac's methods put a request together and return what their adapter does with it; this one's answers
are awaited. hvac's own transport is a requests session: it blocks, takes three times the CPU of a call,
and may read proxies and passwords from the environment. A thread for it costs two switches more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from hvac import utils
from hvac.adapters import Adapter

from macp_auth.domain.errors import SignerUnavailable

_MULTIPLE_CHOICES, _BAD_REQUEST = 300, 400


class AsyncAdapter(Adapter):  # type: ignore[misc]  # hvac is untyped
    """Sends hvac's requests through a session; JSON comes back decoded, as from hvac's own.

    Args:
        base_uri: where Vault is.
        token: what to present; empty, nothing is.
        session: the connections.
        namespace: Vault's, if not the root.
    """

    def __init__(
        self,
        *,
        base_uri: str,
        token: str,
        session: aiohttp.ClientSession,
        namespace: str | None,
        **_unused: object,
    ) -> None:
        self._base_uri = base_uri.rstrip("/")
        self._session = session
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
                to another host.
            hvac.exceptions.VaultError: the answer is an error.
            aiohttp.ClientError, TimeoutError: there is no answer.
        """
        async with self._session.request(
            method,
            f"{self._base_uri}{url}?{urlencode(params)}" if params else f"{self._base_uri}{url}",
            data=None if json is None else msgspec.json.encode(json),
            headers=self._headers,
            allow_redirects=False,
        ) as response:
            content = await response.read()
        answer = _decoded(content)
        if response.status >= _BAD_REQUEST:
            errors = answer.get("errors") if isinstance(answer, dict) else None
            text = content.decode(errors="replace")
            utils.raise_for_error(method, url, response.status, text, errors, text, answer)
        if response.status >= _MULTIPLE_CHOICES:
            raise SignerUnavailable(
                "Vault redirects: this node is a standby that does not forward; "
                "give the address of the active node, or of a load balancer that finds it",
                reason="standby",
            )
        return answer


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
