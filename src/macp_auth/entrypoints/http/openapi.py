"""The OpenAPI 3.1 document of the service, at ``/openapi.json``.

Litestar derives it from the routes. The request of ``POST /tokens`` is described here, because its bytes are
decoded more strictly than a framework does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar import Request, get
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema

from macp_auth import __version__
from macp_auth.domain.sender import MAX_SENDER_CHARS
from macp_auth.entrypoints.http.errors import ErrorAnswer

PATH = "/openapi.json"

CONFIG = OpenAPIConfig(
    title="macp-auth",
    version=__version__,
    summary="Short-lived JWTs for agents of the Multi-Agent Coordination Protocol",
    servers=[],
)


@get(PATH, sync_to_thread=False, include_in_schema=False)
def document_route(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Answer with the document."""
    return request.app.openapi_schema.to_schema()


def answer(body: type | None, description: str) -> ResponseSpec:
    """Return the description of an answer; a ``body`` of None is no body."""
    return ResponseSpec(body, description=description, generate_examples=False)


def refusal(description: str) -> ResponseSpec:
    """Return the description of an answer that is an error."""
    return answer(ErrorAnswer, description)


def _or_null(kind: OpenAPIType, **more: Any) -> Schema:
    return Schema(type=[kind, OpenAPIType.NULL], **more)


_SCOPES = Schema(
    type=OpenAPIType.OBJECT,
    description="The `macp_scopes` claim. The runtime's default for an absent member is mostly permissive.",
    properties={
        "can_start_sessions": _or_null(OpenAPIType.BOOLEAN),
        "can_manage_mode_registry": _or_null(OpenAPIType.BOOLEAN),
        "is_observer": _or_null(OpenAPIType.BOOLEAN),
        "allowed_modes": _or_null(OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.STRING)),
        "max_open_sessions": _or_null(OpenAPIType.INTEGER, minimum=0, maximum=2**64 - 1),
    },
)
_TOKEN_REQUEST = Schema(
    type=OpenAPIType.OBJECT,
    required=["sender"],
    properties={
        "sender": Schema(
            type=OpenAPIType.STRING,
            min_length=1,
            max_length=MAX_SENDER_CHARS,
            description="The `sub` claim: no invisible characters, no white space at either end.",
        ),
        "scopes": _SCOPES,
        "ttl_seconds": _or_null(
            OpenAPIType.NUMBER, exclusive_minimum=0, description="Cut to the longest lifetime."
        ),
        # Without a type: without a callers file, any value is ignored.
        "audience": Schema(description="The `aud` claim, a string. Ignored without a callers file."),
    },
)


@dataclass
class MintOperation(Operation):
    """The operation of ``POST /tokens``."""

    def __post_init__(self) -> None:
        """Add the request, which Litestar derives from a handler's arguments."""
        content = {"application/json": OpenAPIMediaType(schema=_TOKEN_REQUEST)}
        self.request_body = RequestBody(content, required=True)


MINT_REFUSALS = {
    400: refusal("The request is not valid"),
    401: refusal("With a callers file: a credential is required, or the one that was sent is not accepted"),
    403: refusal("The caller does not get this token"),
    413: refusal("The body is too large"),
    415: refusal("The body is not JSON"),
    429: refusal("The rate of the caller's grant is used up; Retry-After says when to try again"),
    503: refusal("No token can be signed now; Retry-After says when to try again"),
}
