"""The load: wrk, and its result in a form that needs no parsing of prose."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import msgspec

from tools.bench.service import MINT_REQUEST

GRACE_SECONDS = 30  # wrk may outlast its duration by this much before it is killed

MINTING = """
wrk.method = "POST"
wrk.body = [==[%s]==]
wrk.headers["content-type"] = "application/json"
"""
# wrk's own "status" counts answers from 400 on; there are no 1xx or 3xx to miss. os.clock() is the CPU time
# of its whole process.
RESULT = """
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"cpu_us":%d,"p50_us":%d,"p99_us":%d,"non_2xx":%d,"socket_errors":%d}\\n',
    summary.requests, summary.duration, os.clock() * 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


class LoadFailed(RuntimeError):
    """wrk gave no figures."""


class Load(msgspec.Struct, frozen=True):
    """What wrk saw."""

    requests: int
    duration_us: int
    cpu_us: int
    """That it used itself."""
    p50_us: int
    p99_us: int
    non_2xx: int
    socket_errors: int

    @property
    def per_second(self) -> float:
        return self.requests / self.duration_us * 1e6

    @property
    def cores(self) -> float:
        """How many cores it kept busy itself."""
        return self.cpu_us / self.duration_us

    @property
    def failed(self) -> int:
        return self.non_2xx + self.socket_errors


def mint(port: int, *, seconds: int, connections: int, request: str = MINT_REQUEST) -> Load:
    """Ask for tokens on ``connections`` connections for ``seconds``."""
    return _drive(port, "/tokens", MINTING % request, seconds, connections)


def fetch_keys(port: int, *, seconds: int, connections: int) -> Load:
    """Ask for the JWKS on ``connections`` connections for ``seconds``."""
    return _drive(port, "/.well-known/jwks.json", "", seconds, connections)


def _drive(port: int, path: str, request: str, seconds: int, connections: int) -> Load:
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory, "load.lua")
        script.write_text(request + RESULT)
        # Slow is not failed: without a timeout of its own, wrk counts what takes over 2 s as an error.
        timing = [f"-d{seconds}s", f"--timeout={seconds + GRACE_SECONDS}s"]
        command = ["wrk", "-t1", f"-c{connections}", *timing, f"-s{script}"]
        try:
            wrk = subprocess.run(
                [*command, f"http://127.0.0.1:{port}{path}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds + GRACE_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise LoadFailed(f"wrk did not end within {seconds + GRACE_SECONDS} s") from None
        except subprocess.CalledProcessError as error:
            raise LoadFailed(f"wrk failed: {error.stdout}{error.stderr}") from None
    load = msgspec.json.decode(wrk.stdout.splitlines()[-1], type=Load)
    if load.requests == 0:
        raise LoadFailed("wrk got no answer at all")
    return load
