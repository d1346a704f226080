"""``macp-auth keys``: make keys."""

from __future__ import annotations

import json

import rich_click as click


@click.group()
def keys() -> None:
    """Make signing keys."""


@keys.command()
@click.option("--alg", type=click.Choice(["RS256", "ES256"]), default="RS256", show_default=True)
@click.option("--kid", help="The key id.  [default: the key's RFC 7638 thumbprint]")
def generate(alg: str, kid: str | None) -> None:
    """Print a new private key as a JWK, for MACP_AUTH_SIGNING_KEY_JSON.

    The output is a secret: send it to a secret store, not to a terminal that is recorded.
    """
    from macp_auth.adapters import jose  # noqa: PLC0415 - cryptography takes a while to import
    from macp_auth.adapters.jwk_document import MAX_KID_CHARS  # noqa: PLC0415
    from macp_auth.domain.keys import Algorithm, thumbprint  # noqa: PLC0415

    if kid is not None and not 0 < len(kid) <= MAX_KID_CHARS:
        raise click.BadParameter(f"must be 1 to {MAX_KID_CHARS} characters", param_hint="--kid")
    key = jose.generate(Algorithm(alg))
    kid = kid or thumbprint(jose.public_jwk(key.public_key()))
    click.echo(json.dumps({**jose.private_jwk(key), "kid": kid, "alg": alg, "use": "sig"}))
