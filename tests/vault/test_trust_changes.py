"""The authorities that may vouch for Vault change again and again, while the service is busy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.users import require_view_of_services
from tests.vault.load import Load
from tools.support.bounded import HANG_SECONDS
from tools.support.openbao import OpenBao
from tools.support.service import Service, wait_until
from tools.support.tls import Certificates
from tools.support.vault_environment import with_token

pytestmark = pytest.mark.slow  # under load for seconds

CHANGES = 150
CONNECTIONS = 4
"""Two calls at most are in flight, and each may have another connection than the one before."""


def test_connections_of_an_older_trust_end(
    tmp_path: Path, certificates: Certificates, key_name: str, start_service: Callable[..., Service]
) -> None:
    """150 changes under load leave the connections of the calls in flight, and fail no mint."""
    require_view_of_services()
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes(certificates.ca.read_bytes())
    with OpenBao(tmp_path, certificates=certificates) as bao:
        bao.create_key(key_name, "ecdsa-p256")
        service = start_service(with_token(bao, key_name, VAULT_CACERT=authorities))
        process = psutil.Process(service.process.pid)

        def connections() -> int:
            return sum(bool(each.raddr) and each.raddr.port == bao.port for each in process.net_connections())

        with Load(service, clients=4) as load:
            load.wait_for(4)
            before = process.num_fds()
            for number in range(CHANGES):
                fresh = tmp_path / f"authorities-{number}.pem"
                shutil.copyfile(certificates.ca, fresh)
                fresh.replace(authorities)
                load.wait_for(5)  # at least one of them began after the change
            wait_until(
                lambda: connections() <= CONNECTIONS, within=HANG_SECONDS, what="few connections to Vault"
            )
            wait_until(
                lambda: process.num_fds() <= before + CONNECTIONS, within=HANG_SECONDS, what="few descriptors"
            )
        assert load.failed == []
