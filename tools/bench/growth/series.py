"""What grows, and what is measured as it does."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from macp_auth.adapters import jose
from macp_auth.domain.keys import Algorithm, KeyVersion
from macp_auth.domain.rotation import Timing, schedule
from tools.bench.figures import Run
from tools.bench.meter import meter_minting
from tools.bench.service import MINT_REQUEST, Server, Service
from tools.bench.subjects import ephemeral, jwk_file
from tools.bench.tables import Row

ALGORITHM = Algorithm.ES256  # the cheaper signature: what the rest costs shows better beside it
CONNECTIONS = 16
SCOPE = "allowed_modes"
MODE_CHARS = 24  # about as long as macp.mode.decision.v1
VERSIONS_APART_SECONDS = 86_400
TIMING = Timing(publish_lead=600, retire_lag=3600)


class Minting(Struct, frozen=True, kw_only=True):
    """The service under load."""

    cpu_us: float
    p50_ms: float
    p99_ms: float
    tokens_per_second: float


class Start(Struct, frozen=True, kw_only=True):
    """The service as it comes up."""

    first_token_ms: float


class Scheduling(Struct, frozen=True, kw_only=True):
    """What is worked out of each reading of a backend."""

    schedule_ms: float


Point = Run[Minting] | Run[Start] | Run[Scheduling]


class Series(Struct, frozen=True):
    """One thing that grows."""

    name: str
    sizes: tuple[int, ...]
    measure: Callable[[int, int], Point]
    """Of a size, and the seconds of the load."""
    rows: tuple[Row, ...]
    """The figures; the first is the one that should stay."""
    step: int
    """The slope is reported for so many more."""


def of_keys(published: int, seconds: int) -> Run[Minting]:
    """Mint with one key of so many that are published."""
    with jwk_file(ALGORITHM, published) as service:
        return _mint(service, seconds)


def of_scopes(size: int, seconds: int) -> Run[Minting]:
    """Mint with scopes of so many bytes of JSON."""
    with ephemeral(ALGORITHM) as service:
        return _mint(service, seconds, request=request_with_scopes(size))


def of_connections(connections: int, seconds: int) -> Run[Minting]:
    """Mint for so many connections at once."""
    with ephemeral(ALGORITHM) as service:
        return _mint(service, seconds, connections=connections)


def of_plugins(installed: int, _seconds: int) -> Run[Start]:
    """Start beside so many plugins, none of which is selected."""
    with plugins(installed) as path:
        environment = {"MACP_AUTH_SIGNING_ALG": ALGORITHM, "PYTHONPATH": path}
        with Service(environment, workers=1) as service:
            return Run(Start(first_token_ms=service.wait_for_first_token() * 1e3), failed=0)


def of_versions(offered: int, _seconds: int) -> Run[Scheduling]:
    """Schedule so many versions, made a day apart, of which the newest signs."""
    jwk = jose.public_jwk(jose.generate(ALGORITHM).public_key())
    versions = [
        KeyVersion(
            kid=f"key-{number}",
            algorithm=ALGORITHM,
            public_jwk=jwk,
            can_sign=True,
            created_at=float(number * VERSIONS_APART_SECONDS),
        )
        for number in range(offered)
    ]
    begun = time.process_time()
    schedule(versions, TIMING, now=float(offered * VERSIONS_APART_SECONDS))
    return Run(Scheduling(schedule_ms=(time.process_time() - begun) * 1e3), failed=0)


MINTING_ROWS = (
    Row("CPU per token, us", "cpu_us", 0),
    Row("latency p50, ms", "p50_ms", 2),
    Row("latency p99, ms", "p99_ms", 2),
    Row("tokens/s", "tokens_per_second", 0),
)
START_ROWS = (Row("first token, ms", "first_token_ms", 0),)
SCHEDULING_ROWS = (Row("scheduling them, ms", "schedule_ms", 2),)
SERIES = {
    "keys": Series("Published keys", (1, 10, 100), of_keys, MINTING_ROWS, 100),
    "scopes": Series("Bytes of scopes", (100, 512, 1024, 2048, 3072), of_scopes, MINTING_ROWS, 1024),
    "connections": Series("Connections", (1, 4, 16, 64, 256, 1024), of_connections, MINTING_ROWS, 1000),
    "versions": Series(
        "Versions that a backend offers", (10, 100, 1000, 5000), of_versions, SCHEDULING_ROWS, 1000
    ),
    "plugins": Series("Plugins that are not selected", (0, 10, 100), of_plugins, START_ROWS, 100),
}


def request_with_scopes(size: int) -> str:
    """Return the request whose scopes are exactly so many bytes, as they are in the token."""
    modes = ["m" * MODE_CHARS] * (size // (MODE_CHARS + len('"",')) - 1)
    missing = size - len(_compact({SCOPE: [*modes, ""]}))
    return _compact({**json.loads(MINT_REQUEST), "scopes": {SCOPE: [*modes, "m" * missing]}})


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _mint(
    service: Server, seconds: int, *, connections: int = CONNECTIONS, request: str = MINT_REQUEST
) -> Run[Minting]:
    service.wait_for_first_token()
    minting = meter_minting(service, seconds=seconds, connections=connections, request=request)
    figures = Minting(
        cpu_us=minting.cpu_us,
        p50_ms=minting.load.p50_us / 1e3,
        p99_ms=minting.load.p99_us / 1e3,
        tokens_per_second=minting.load.per_second,
    )
    return Run(figures, minting.load.failed)


@contextmanager
def plugins(count: int) -> Iterator[str]:
    """A directory with so many installed distributions, as the import system sees them."""
    with tempfile.TemporaryDirectory() as directory:
        for number in range(count):
            module = f"bench_plugin_{number}"
            name = module.replace("_", "-")
            info = Path(directory, f"{module}-1.0.dist-info")
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[macp_auth]\n{name} = {module}\n")
            Path(directory, f"{module}.py").write_text("raise SystemExit('a plugin was imported')\n")
        yield directory
