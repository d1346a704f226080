"""``make bench-growth`` grows what it says it grows."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request

import jwt
import pytest

from macp_auth.domain.keys import Algorithm
from tests.bench.command import call_short
from tools.bench.figures import Run, Spread
from tools.bench.growth.report import slope
from tools.bench.growth.series import SERIES, Minting, plugins, request_with_scopes
from tools.bench.subjects import jwk_file
from tools.support.programs import require_tool
from tools.support.service import clean_environment

GROWTH = "tools.bench.growth"


def test_a_short_growth_has_every_point_and_its_slope() -> None:
    """Plugins that are not selected are not imported: they would end the service."""
    require_tool("wrk", "wrk")
    done = call_short(GROWTH, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["failed"] == 0
    grown = report["series"]["plugins"]
    assert [int(size) for size in grown["points"]] == list(SERIES["plugins"].sizes)
    assert all(point["first_token_ms"]["median"] > 0 for point in grown["points"].values())
    assert set(grown["slope"]) == set(Spread.__struct_fields__)


def test_the_service_knows_the_plugins_that_it_does_not_select() -> None:
    """Otherwise flat would mean nothing."""
    with plugins(3) as path:
        listed = subprocess.run(
            [sys.executable, "-m", "macp_auth", "plugins", "list"],
            env={**clean_environment(), "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
    assert [f"bench-plugin-{number}" in listed.stdout for number in range(3)] == [True] * 3


@pytest.mark.parametrize("size", SERIES["scopes"].sizes)
def test_scopes_have_exactly_the_requested_size(size: int) -> None:
    """The bytes of JSON that go into the token, and the token is not refused for them."""
    scopes = json.loads(request_with_scopes(size))["scopes"]
    assert len(json.dumps(scopes, separators=(",", ":"))) == size


def test_so_many_keys_are_published_and_the_first_signs() -> None:
    """The series of keys would otherwise measure something else."""
    with jwk_file(Algorithm.ES256, published=3) as service:
        service.wait_for_first_token()
        url = f"http://127.0.0.1:{service.port}"
        with urllib.request.urlopen(f"{url}/.well-known/jwks.json") as answer:
            kids = [jwk["kid"] for jwk in json.load(answer)["keys"]]
        request = urllib.request.Request(
            f"{url}/tokens", b'{"sender":"agent://risk"}', {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            header = jwt.get_unverified_header(json.load(answer)["token"])
    assert kids == ["key-0", "key-1", "key-2"]
    assert header["kid"] == "key-0"


def costing(cpu_us: float) -> Run[Minting]:
    return Run(Minting(cpu_us=cpu_us, p50_ms=1, p99_ms=2, tokens_per_second=9000), failed=0)


def test_the_slope_is_what_a_step_more_adds() -> None:
    """A microsecond for ten keys is ten for a hundred, and the slopes of the runs are distinguished."""
    sizes = SERIES["keys"].sizes
    flat, steep = ({size: costing(100 + size * each) for size in sizes} for each in (0, 0.1))
    found = slope(SERIES["keys"], [flat, steep])
    assert [found.low, found.high] == pytest.approx([0, 10])
