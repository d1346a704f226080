"""hvac over a bare urllib3 pool.

hvac's own transport is a requests session, which takes more than half of a call's CPU (730 us a
signature against 340), and may read proxies and passwords from the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
import urllib3
from hvac import utils
from hvac.adapters import Adapter

from macp_auth.domain.errors import SignerUnavailable

_MULTIPLE_CHOICES, _BAD_REQUEST = 300, 400


class PooledAdapter(Adapter):  # type: ignore[misc]  # hvac is untyped
    """Sends hvac's requests through a pool; JSON comes back decoded, as from hvac's own.

    Args:
        token: what to present; empty, nothing is.
        session: the pool. hvac calls it so.
        namespace: Vault's, if not the root.
    """

    def __init__(
        self, *, token: str, session: urllib3.HTTPConnectionPool, namespace: str | None, **_unused: object
    ) -> None:
        self._pool = session
        self._headers = {"X-Vault-Request": "true", "Content-Type": "application/json"}
        if token:
            self._headers["X-Vault-Token"] = token
        if namespace:
            self._headers["X-Vault-Namespace"] = namespace

    def get_login_token(self, response: Mapping[str, Any]) -> str:
        """Return the token of a login's answer."""
        token: str = response["auth"]["client_token"]
        return token

    def request(
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
            urllib3.exceptions.HTTPError: there is no answer.
        """
        response = self._pool.urlopen(
            method.upper(),
            f"{url}?{urlencode(params)}" if params else url,
            body=None if json is None else msgspec.json.encode(json),
            headers=self._headers,
            redirect=False,
        )
        answer = _decoded(response.data)
        if response.status >= _BAD_REQUEST:
            errors = answer.get("errors") if isinstance(answer, dict) else None
            text = response.data.decode(errors="replace")
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
