"""The command line: ``python -m tools.bench.plugins``, or ``make bench-plugins``. What a process costs.

The signer is the example plugin with ES256, in this process and in one of its own, without HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec
import psutil
import uvloop
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from macp_auth.adapters.plugins import load_signer_plugin
from macp_auth.adapters.sandbox.limits import Limits
from macp_auth.adapters.sandbox.translation import TranslatingSigner
from macp_auth.adapters.sandbox.wrapped import hosted, sandboxed
from macp_auth.domain.signer import Signer
from macp_auth.entrypoints.logs import configure_logs
from macp_auth.entrypoints.plan import plan_service
from macp_auth.entrypoints.signers.settings import read_signer_settings
from tools.bench import command, machine, signature
from tools.bench.figures import Run, Spreads, spreads
from tools.bench.machine import Machine
from tools.bench.service import MIB, Service
from tools.bench.tables import Row, Table, table

SIGNATURES = 4000
CONCURRENCIES = {1: "A signature, one at a time", 16: "A signature, 16 at a time"}
IN_PROCESS, HOSTED = "in the service", "in its own process"
BUILT_IN, PLUGIN = "built-in signer", "plugin"
START_TITLE = "Start of the service"
MOST_MORE_CPU_US = 150
"""On a machine where a bare signature takes :data:`BARE_US`, as in docs/performance.md."""
BARE_US = 16
MOST_MORE_CPU = MOST_MORE_CPU_US / BARE_US
"""In bare signatures, on any machine."""
MOST_MORE_P50_MS = 0.3
MOST_START_RATIO = 1.5
SIGNATURE_ROWS = (
    Row("CPU, us", "cpu_us", 0),
    Row("CPU : bare signature", "ratio", 1),
    Row("p50, ms", "p50_ms", 2),
    Row("resident memory of the process, MiB", "resident_mib", 1),
)
START_ROWS = (Row("first token, ms", "first_token_ms", 0),)
_NAME = "example"
_INPUT = b"x" * 400  # as long as the header and the claims of a usual token
_WARM_UP = 300


class Figures(Struct, frozen=True):
    """What a signature costs."""

    cpu_us: float
    """Of all processes, to sign and to verify."""
    ratio: float
    """The same in bare signatures."""
    p50_ms: float
    resident_mib: float | None
    """Of the plugin's process, if it has one."""


class Start(Struct, frozen=True):
    """How soon a service mints."""

    first_token_ms: float


class Report(Struct, frozen=True):
    """All that the bench has to say."""

    machine: Machine
    runs: int
    signatures: Mapping[int, Mapping[str, Spreads]]
    """By concurrency and place."""
    starts: Mapping[str, Spreads]


def write_key(directory: Path) -> Mapping[str, str]:
    """Write a key for the example plugin, and return the variables that select both."""
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = directory / "key.pem"
    file.touch(mode=0o600)
    file.write_bytes(pem)
    return {"MACP_AUTH_SIGNER": _NAME, "MACP_AUTH_EXAMPLE_KEY_FILE": str(file)}


def measure_signatures(runs: int, count: int = SIGNATURES) -> Mapping[int, Mapping[str, Spreads]]:
    """Sign in each place in turn, so many times."""
    found: dict[tuple[int, str], list[Run[Figures]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        places = _places(write_key(Path(directory)))
        key = ec.generate_private_key(ec.SECP256R1())
        for _ in range(runs):
            bare_us = signature.cpu_us(key)
            for concurrency in CONCURRENCIES:
                for place, opening in places.items():
                    figures = uvloop.run(_measure(opening, concurrency, count, bare_us))
                    found.setdefault((concurrency, place), []).append(Run(figures, failed=0))
    return {
        concurrency: {place: spreads(found[concurrency, place]) for place in (IN_PROCESS, HOSTED)}
        for concurrency in CONCURRENCIES
    }


def _places(environment: Mapping[str, str]) -> Mapping[str, Callable[[], Signer]]:
    plugin = load_signer_plugin(_NAME)
    state = plugin.prepare(read_signer_settings(plugin, environment))
    prepared = plan_service(environment).hosted
    assert prepared is not None
    return {
        IN_PROCESS: lambda: sandboxed(TranslatingSigner(lambda: plugin.open(state), _NAME), _NAME, Limits()),
        HOSTED: lambda: hosted(prepared.opening(environment), Limits().sign_seconds),
    }


async def _measure(opening: Callable[[], Signer], concurrency: int, count: int, bare_us: float) -> Figures:
    signer = opening()
    [version] = await signer.key_versions()
    seconds: list[float] = []

    async def sign(times: int) -> None:
        for _ in range(times):
            begun = time.perf_counter()
            await signer.sign(version.kid, _INPUT)
            seconds.append(time.perf_counter() - begun)

    await sign(_WARM_UP)
    gc.freeze()  # as in the service
    seconds.clear()
    processes = [psutil.Process(), *psutil.Process().children()]
    before = _cpu_seconds(processes)
    await asyncio.gather(*(sign(count // concurrency) for _ in range(concurrency)))
    cpu_us = (_cpu_seconds(processes) - before) / len(seconds) * 1e6
    resident = sum(process.memory_info().rss for process in processes[1:]) / MIB
    await signer.aclose()
    return Figures(cpu_us, cpu_us / bare_us, median(seconds) * 1e3, resident or None)


def _cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(spent.user + spent.system for spent in times)


def measure_starts(runs: int) -> Mapping[str, Spreads]:
    """Start a service with a built-in signer and one with the plugin, in turn, so many times."""
    found: dict[str, list[Run[Start]]] = {BUILT_IN: [], PLUGIN: []}
    with tempfile.TemporaryDirectory() as directory:
        built_in = {"MACP_AUTH_SIGNER": "ephemeral", "MACP_AUTH_SIGNING_ALG": "ES256"}
        environments = {BUILT_IN: built_in, PLUGIN: write_key(Path(directory))}
        for _ in range(runs):
            for name, done in found.items():
                with Service({**environments[name], "MACP_AUTH_AUDIT_LOG": "off"}, 1) as service:
                    done.append(Run(Start(service.wait_for_first_token() * 1e3), failed=0))
    return {name: spreads(done) for name, done in found.items()}


def _rendered(report: Report, form: Callable[[Table], str]) -> str:
    about = f"{report.machine}.\nES256; median (and range) of {report.runs} alternating run(s)."
    return "\n\n".join([about, *map(form, tables(report))])


def tables(report: Report) -> list[Table]:
    """Return a table for each concurrency, and one for the starts."""
    signatures = [
        table(CONCURRENCIES[concurrency], places, SIGNATURE_ROWS)
        for concurrency, places in report.signatures.items()
    ]
    return [*signatures, table(START_TITLE, report.starts, START_ROWS)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Bench, print, and return the exit status."""
    parser = argparse.ArgumentParser(prog="tools.bench.plugins", description="What a plugin's process costs.")
    parser.add_argument("--runs", type=command.count(100), default=5, help="of each (default %(default)s)")
    command.add_outputs(parser)
    options = parser.parse_args(arguments)
    configure_logs()  # as in the service
    here = machine.describe()
    report = Report(here, options.runs, measure_signatures(options.runs), measure_starts(options.runs))
    rendering = command.Rendering(
        text=_rendered(report, Table.as_text),
        json=msgspec.json.encode(report).decode(),
        markdown=_rendered(report, Table.as_markdown),
    )
    return command.publish(rendering, options, block="plugins", failed=0)


if __name__ == "__main__":
    sys.exit(main())
