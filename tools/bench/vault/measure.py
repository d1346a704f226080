"""One run: the service on a key in Vault, and the bare calls on the same one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from tools.bench import load
from tools.bench.figures import Run
from tools.bench.service import Service
from tools.bench.vault import calls
from tools.support.openbao import OpenBao
from tools.support.vault_environment import with_token

KEY_TYPES = {"RS256": "rsa-2048", "ES256": "ecdsa-p256"}
JWKS_ALGORITHM = "ES256"
_BATCH, _BATCH_CALLS = 64, 4  # as much at a time as the server gains from
_WARM_UP_SECONDS = 1
_MINTING_CLIENTS, _READING_CLIENTS = 16, 8


class Signing(Struct, frozen=True, kw_only=True):
    """What a run measures of one algorithm."""

    bare_hvac: float
    """Tokens a second of ``CLIENTS`` threads with one call a token, of hvac as it comes."""
    tuned_hvac: float
    """The same of a tuned hvac."""
    server: float
    """Signatures a second that the server makes in batches."""
    service: float
    """Tokens a second of the service for ``CLIENTS`` connections."""
    to_bare_hvac: float
    to_server: float
    hvac_p50_ms: float
    """One tuned call after another."""
    service_p50_ms: float
    """One request for a token after another."""
    to_hvac_p50: float


class Reading(Struct, frozen=True, kw_only=True):
    """How the JWKS fares under load, with Vault and without."""

    p99_ms: float
    stopped_p99_ms: float


def signing(bao: OpenBao, algorithm: str, seconds: int) -> Run[Signing]:
    """Mint, and call Vault, for ``seconds`` each."""
    environment = with_token(bao, algorithm)
    with Service(environment, workers=1) as service:
        service.wait_for_first_token()
        load.mint(service.port, seconds=_WARM_UP_SECONDS, connections=calls.CLIENTS)
        many = load.mint(service.port, seconds=seconds, connections=calls.CLIENTS)
        one = load.mint(service.port, seconds=seconds, connections=1)
    # The same token for all: what its policies are makes a difference of 0.15 ms a call.
    bare, tuned = (make(bao, environment["VAULT_TOKEN"]) for make in (calls.bare_client, calls.tuned_client))
    alone = calls.sign_one(tuned, algorithm)
    hvac_p50 = calls.median_seconds(alone, seconds)
    bare_hvac = calls.rate(calls.sign_one(bare, algorithm), calls.CLIENTS, seconds)
    in_batches = calls.rate(calls.sign_batch(tuned, algorithm, _BATCH), _BATCH_CALLS, seconds)
    service_rate = many.requests / many.duration_us * 1e6
    figures = Signing(
        bare_hvac=bare_hvac,
        tuned_hvac=calls.rate(alone, calls.CLIENTS, seconds),
        server=_BATCH * in_batches,
        service=service_rate,
        to_bare_hvac=service_rate / bare_hvac,
        to_server=service_rate / (_BATCH * in_batches),
        hvac_p50_ms=hvac_p50 * 1e3,
        service_p50_ms=one.p50_us / 1e3,
        to_hvac_p50=one.p50_us / 1e6 / hvac_p50,
    )
    return Run(figures, failed=many.failed + one.failed)


def reading(bao: OpenBao, seconds: int) -> Run[Reading]:
    """Read the JWKS while tokens are minted, and while they can't be. Vault is stopped afterwards."""
    with Service(with_token(bao, JWKS_ALGORITHM), workers=1) as service:
        service.wait_for_first_token()
        up = _read_under_load(service, seconds)
        bao.stop()
        down = _read_under_load(service, seconds)
    figures = Reading(p99_ms=up.p99_us / 1e3, stopped_p99_ms=down.p99_us / 1e3)
    return Run(figures, failed=up.failed + down.failed)


def _read_under_load(service: Service, seconds: int) -> load.Load:
    with ThreadPoolExecutor(1) as background:
        minting = background.submit(
            load.mint, service.port, seconds=seconds + 1, connections=_MINTING_CLIENTS
        )
        time.sleep(0.5)  # the load is there; a bench may wait for no more than that
        keys = load.fetch_keys(service.port, seconds=seconds, connections=_READING_CLIENTS)
        minting.result()
    return keys
