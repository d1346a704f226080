"""A signer that is a program: it speaks the signer protocol, and knows nothing of our package.

Its argument is a fault, or ``none``. It is run by itself, so its imports are late: most faults need none.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

FAULT = sys.argv[1]
PREFIXES = {"prefix": "MACP_AUTH_", "prefix-of-the-service": "MACP_AUTH_VAULT_"}
SECRET = "MACP_AUTH_TINY_TOKEN"
VARIABLES = {"variable-of-the-service": "MACP_AUTH_VAULT_TOKEN", "all-variables": "*"}
service = socket.socket(fileno=0)
state: dict[str, Any] = {}


class Refused(Exception):
    """The settings are wrong."""


def main() -> None:
    """Answer requests until the service is gone."""
    match FAULT:
        case "exits":
            sys.stderr.write("no licence\n")
            sys.exit(3)
        case "prints-no-frames":
            service.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        case "no-json":
            send(b"hello")
        case "frame-too-long":
            service.sendall((9 * 1024 * 1024).to_bytes(4))
    stream = service.makefile("rb")
    while length := stream.read(4):
        call = json.loads(stream.read(int.from_bytes(length)))
        if "id" in call:
            reply = {"jsonrpc": "2.0", "id": call["id"], **answer(call["method"], call.get("params", {}))}
            send(json.dumps(reply).encode())


def send(body: bytes) -> None:
    service.sendall(len(body).to_bytes(4) + body)


def error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "sign":
        return sign(params["kid"], base64.b64decode(params["input"]))
    if method not in METHODS:
        return error(-32601, "no such method")
    try:
        return {"result": METHODS[method](params)}
    except Refused as refused:
        return error(3, str(refused))


def prepare(params: dict[str, Any]) -> dict[str, Any]:
    if FAULT == "hangs-in-prepare":
        print("prepares", flush=True)  # noqa: T201 - for the log
        time.sleep(3600)
    token = params["environment"].get(SECRET, "").encode()
    if FAULT == "secret-in-prepare":
        print("the token is", token.decode(), flush=True)  # noqa: T201 - the fault
        raise Refused(f"bad token {token.decode()}")
    return {"state": base64.b64encode(token + b"\n" + make_key()).decode()}


def open_signer(params: dict[str, Any]) -> dict[str, Any]:
    token, state["pem"] = base64.b64decode(params["state"]).split(b"\n", 1)
    state["token"] = token.decode()
    return {}


def diagnose(_: dict[str, Any]) -> dict[str, Any]:
    finding = {"check": "tiny", "status": "warning", "text": "a finding", "remedy": "a remedy"}
    send(json.dumps({"jsonrpc": "2.0", "method": "finding", "params": {"finding": finding}}).encode())
    return {}


def description() -> dict[str, Any]:
    if FAULT == "no-description":
        return {}
    return {
        "protocol": 2 if FAULT == "protocol" else 1,
        "name": "other" if FAULT == "name" else "tiny",
        "prefix": PREFIXES.get(FAULT, "MACP_AUTH_TINY_"),
        "variables": [{"name": VARIABLES.get(FAULT, SECRET), "secret": True}],
        "environment": ["MACP_AUTH_*"] if FAULT == "environment" else [],
        "concurrent_signs": 129 if FAULT == "concurrent-signs" else 128,
        "sign_seconds": {"sign-seconds": 9, "hangs": 0.5}.get(FAULT, 2),
        "diagnoses": True,
    }


def make_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - slow
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key() -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    if "key" not in state:
        state["key"] = load_pem_private_key(make_key() if FAULT == "key-in-open" else state["pem"], None)
    return state["key"]


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def version() -> dict[str, Any]:
    numbers = key().public_key().public_numbers()
    jwk = {"crv": "P-256", "kty": "EC"}
    jwk |= {name: base64url(getattr(numbers, name).to_bytes(32)) for name in ("x", "y")}
    kid: Any = base64url(hashlib.sha256(json.dumps(jwk, separators=(",", ":")).encode()).digest())
    if FAULT == "kid-number":
        kid = 1
    return {"kid": kid, "algorithm": "ES256", "public_jwk": jwk, "can_sign": True}


def sign(kid: str, signing_input: bytes) -> dict[str, Any]:
    from cryptography.hazmat.primitives.asymmetric import ec, utils  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    if FAULT == "prints-secret":
        print("the token is", state["token"], flush=True)  # noqa: T201 - the fault
    if kid != version()["kid"]:
        if FAULT == "secret-in-error":
            return error(1, f"no {kid} with {state['token']}")
        return error(5 if FAULT == "unknown-kid" else 4, "no such kid")
    if FAULT == "hangs":
        time.sleep(3600)
    der = key().sign(signing_input, ec.ECDSA(SHA256()))
    if FAULT == "der":
        return {"result": {"signature": base64.b64encode(der).decode()}}
    r, s = utils.decode_dss_signature(der)
    return {"result": {"signature": base64.b64encode(r.to_bytes(32) + s.to_bytes(32)).decode()}}


METHODS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "hello": lambda _: description(),
    "ping": lambda _: {},
    "prepare": prepare,
    "open": open_signer,
    "key_versions": lambda _: {"versions": [version()]},
    "statistics": lambda _: {"numbers": {"sessions": 3}},
    "diagnose": diagnose,
    "close": lambda _: {},
}

main()
