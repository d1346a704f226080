"""What this plugin signs, and which files it refuses."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from joserfc import jws
from joserfc.jwk import ECKey
from macp_auth import SignerMisconfigured, SignerUnavailable, UnknownKid

from macp_auth_example import ExampleSettings, ExampleSigner, prepare


def test_signature_verifies(key_file: Path) -> None:
    """Joserfc accepts a token that was signed by the key which is published."""

    async def mint() -> tuple[str, ECKey]:
        async with aclosing(ExampleSigner(prepare(ExampleSettings(str(key_file))))) as signer:
            (version,) = await signer.key_versions()
            signing_input = b'{"alg":"ES256"}', b'{"sub":"agent://risk"}'
            text = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in signing_input)
            signature = urlsafe_b64encode(await signer.sign(version.kid, text)).rstrip(b"=")
            return f"{text.decode()}.{signature.decode()}", ECKey.import_key(
                msgspec.to_builtins(version.public_jwk)
            )

    token, key = asyncio.run(mint())
    assert jws.deserialize_compact(token, key, algorithms=["ES256"]).payload == b'{"sub":"agent://risk"}'


def test_other_kid_and_closed_signer(key_file: Path) -> None:
    """Another kid is unknown, and a closed signer does not sign."""

    async def ask() -> None:
        signer = ExampleSigner(prepare(ExampleSettings(str(key_file))))
        with pytest.raises(UnknownKid):
            await signer.sign("other", b"x")
        await signer.aclose()
        await signer.aclose()
        with pytest.raises(SignerUnavailable):
            await signer.sign((await signer.key_versions())[0].kid, b"x")

    asyncio.run(ask())


@pytest.mark.parametrize("kind", ["missing", "readable", "text", "rsa", "encrypted"])
def test_unfit_file_stops_the_start(kind: str, key_file: Path) -> None:
    """The text names the variable, and shows neither the path nor the content."""
    encryption = BestAvailableEncryption(b"passphrase")
    match kind:
        case "missing":
            key_file.unlink()
        case "readable":
            key_file.chmod(0o644)
        case "text":
            key_file.write_text("hidden")
        case "rsa":
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        case "encrypted":
            own = load_pem_private_key(key_file.read_bytes(), None)
            key_file.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    with pytest.raises(SignerMisconfigured, match="MACP_AUTH_EXAMPLE_KEY_FILE") as error:
        prepare(ExampleSettings(str(key_file)))
    assert "hidden" not in str(error.value)
    assert str(key_file) not in str(error.value)
