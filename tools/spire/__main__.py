"""``make spire``: the service with a real SPIRE, which rotates SVIDs and authorities under load.

    SPIRE_SERVER_BIN=… SPIRE_AGENT_BIN=… python -m tools.spire --seconds 240

The exit status is 1 if a call was lost, or if a token was minted that must not be; 2 without SPIRE. To build
the programs, run ``go build ./cmd/spire-server ./cmd/spire-agent`` in SPIRE's source.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tools.spire.spire import Lifetimes, Programs, TrustDomain, running
from tools.support import callers
from tools.support.bounded import HANG_SECONDS
from tools.support.programs import ProgramMissing, missing
from tools.support.service import wait_until
from tools.support.tls import Authority, Pair
from tools.support.tls_service import TLSService, tls_settings, trusting

DOMAIN, OTHER = "example.org", "other.org"
ISSUER = "https://spire.example.org"
SVID_TTL_SECONDS, AUTHORITY_TTL_SECONDS = 30, 120
FOLLOW_SECONDS = 1.0
"""How often the bundle is written for the service, as a helper beside it would."""
REQUEST = {"sender": "risk-agent"}
CALLERS = f"""
[[issuer]]
name = "spire"
issuer = "{ISSUER}"
audience = "macp-auth"
jwks_file = "PATH"

[[caller]]
name = "by-certificate"
spiffe_id = "{callers.SPIFFE_ID}"
{callers.RISK}
[[caller]]
name = "by-jwt"
jwt = {{ issuer = "spire", subject = "{callers.SPIFFE_ID}" }}
{callers.RISK}"""


def main() -> int:
    """Run it, print what came of it, and return the exit status."""
    parser = argparse.ArgumentParser(prog="make spire", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240, help="of load; default %(default)s")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that all it started ends
    try:
        programs = Programs(_program("spire-server"), _program("spire-agent"))
    except ProgramMissing as error:
        print(f"spire: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="spire-") as directory:
        outcomes = _run(programs, Path(directory), options.seconds)
    for outcome, count in sorted(outcomes.items()):
        print(f"{outcome}: {count}")
    return 1 if any(outcome.startswith(("LOST", "WRONG")) for outcome in outcomes) else 0


def _program(name: str) -> Path:
    variable = f"{name.upper().replace('-', '_')}_BIN"
    found = os.environ.get(variable) or shutil.which(name)
    return Path(found or missing(f"{name} is missing; build it from SPIRE's source, and set {variable}"))


def _run(programs: Programs, directory: Path, seconds: float) -> Counter[str]:
    with ExitStack() as stack:
        lifetimes = Lifetimes(svid=SVID_TTL_SECONDS, authority=AUTHORITY_TTL_SECONDS)
        # The issuer is the same on purpose: only the keys tell the two apart.
        ours, other = (
            stack.enter_context(running(programs, directory / name, name, ISSUER, lifetimes))
            for name in (DOMAIN, OTHER)
        )
        ours.register(callers.SPIFFE_ID)
        other.register(callers.SPIFFE_ID.replace(DOMAIN, OTHER))
        bundle = _Bundle(ours, directory)
        authority = Authority(directory)
        settings = {
            **tls_settings(authority.issue("server")),
            **callers.write(directory / "callers.toml", CALLERS.replace("PATH", str(bundle.jwks))),
            "MACP_AUTH_TLS_CLIENT_CA_FILE": str(bundle.authorities),
            "MACP_AUTH_SIGNING_ALG": "ES256",
        }
        service = stack.enter_context(TLSService(directory, authority.path, settings))
        wait_until(
            lambda: _mints_by_certificate(service, authority, ours.x509_svid()),
            within=HANG_SECONDS,
            what="a token is minted",
        )
        outcomes: Counter[str] = Counter()
        _try_others(outcomes, service, authority, ours, other)
        _load(outcomes, service, authority, bundle, time.monotonic() + seconds)
        _try_others(outcomes, service, authority, ours, other)
        return outcomes


class _Bundle:
    """The trust bundle, in the files that the service reads."""

    def __init__(self, domain: TrustDomain, directory: Path) -> None:
        self.domain = domain
        self.authorities = directory / "bundle.pem"
        self.jwks = directory / "bundle.json"
        self.seen: set[str] = set()
        self.jwt_keys_seen: set[str] = set()
        self.write()

    def write(self) -> None:
        """Write it as it is now, by renaming."""
        for path, content in ((self.authorities, self.domain.authorities()), (self.jwks, self.domain.jwks())):
            fresh = path.with_suffix(".new")
            fresh.write_text(content)
            fresh.replace(path)
        self.seen.update(self.authorities.read_text().split("-----END CERTIFICATE-----")[:-1])
        keys = json.loads(self.jwks.read_text())["keys"]
        self.jwt_keys_seen.update(key["kid"] for key in keys if key["use"] == "jwt-svid")


def _load(
    outcomes: Counter[str], service: TLSService, authority: Authority, bundle: _Bundle, until: float
) -> None:
    serials, written = set(), 0.0
    while time.monotonic() < until:
        if time.monotonic() > written + FOLLOW_SECONDS:
            bundle.write()
            written = time.monotonic()
            svid = bundle.domain.x509_svid()
            serials.add(svid.serial)
            token = bundle.domain.jwt_svid("macp-auth")
        minted = _mints_by_certificate(service, authority, svid)
        outcomes["minted by X509-SVID" if minted else "LOST by X509-SVID"] += 1
        minted = _mints_by_jwt(service, token)
        outcomes["minted by JWT-SVID" if minted else "LOST by JWT-SVID"] += 1
    outcomes["X509-SVIDs used"] = len(serials)
    outcomes["X.509 authorities seen"] = len(bundle.seen)
    outcomes["keys for JWT-SVIDs seen"] = len(bundle.jwt_keys_seen)


def _mints_by_certificate(service: TLSService, authority: Authority, svid: Pair) -> bool:
    try:
        return service.exchange(callers.request(REQUEST), trusting(authority.path, svid)).status == 200
    except OSError:  # the handshake failed
        return False


def _mints_by_jwt(service: TLSService, token: str) -> bool:
    return service.exchange(callers.request(REQUEST, bearer=token)).status == 200


def _try_others(
    outcomes: Counter[str], service: TLSService, authority: Authority, ours: TrustDomain, other: TrustDomain
) -> None:
    """Neither SVIDs of another trust domain mint, nor a JWT-SVID for another audience."""
    for what, minted in (
        ("X509-SVID of another domain", _mints_by_certificate(service, authority, other.x509_svid())),
        ("JWT-SVID of another domain", _mints_by_jwt(service, other.jwt_svid("macp-auth"))),
        ("JWT-SVID for another audience", _mints_by_jwt(service, ours.jwt_svid("macp-runtime"))),
    ):
        outcomes[f"WRONG: minted by {what}" if minted else f"refused {what}"] += 1


if __name__ == "__main__":
    sys.exit(main())
