"""The support of the Vault tests does what it says."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import hvac
import pytest
import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.fake_server import FakeServer, Reply
from tests.support.openbao_auth import FakeKubernetes, enable_approle, enable_jwt, enable_kubernetes
from tests.support.proxy import Proxy
from tools.support.bounded import HANG_SECONDS
from tools.support.openbao import OpenBao
from tools.support.processes import connection, read_to_end
from tools.support.service import wait_until
from tools.support.tls import make_certificates

CONTENT = b"content"


def sign_and_verify(bao: OpenBao, key: str) -> None:
    """Sign with the newest version of an ecdsa-p256 key, and let cryptography judge."""
    transit = bao.client().secrets.transit
    content = base64.b64encode(CONTENT).decode()
    signed = transit.sign_data(key, content, hash_algorithm="sha2-256")["data"]
    pem = transit.read_key(key)["data"]["keys"][str(signed["key_version"])]["public_key"]
    public_key = serialization.load_pem_public_key(pem.encode())
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    signature = base64.b64decode(signed["signature"].split(":")[2])
    public_key.verify(signature, CONTENT, ec.ECDSA(hashes.SHA256()))


def get(url: str) -> int:
    return requests.get(f"{url}/v1/sys/health", timeout=(5, 0.5)).status_code


def test_a_key_signs_rotates_and_goes(openbao: OpenBao, key_name: str) -> None:
    """A key of the shared server has the versions that its test gives it, until it is deleted."""
    openbao.create_key(key_name, "ecdsa-p256")
    openbao.rotate(key_name)
    sign_and_verify(openbao, key_name)
    openbao.set_min_version(key_name, 2)
    key = openbao.client().secrets.transit.read_key(key_name)["data"]
    assert list(key["keys"]) == ["2"]
    openbao.delete_key(key_name)
    with pytest.raises(hvac.exceptions.InvalidPath):
        openbao.client().secrets.transit.read_key(key_name)


@pytest.mark.parametrize("kill", [False, True])
def test_data_outlives_the_process(own_openbao: OpenBao, key_name: str, *, kill: bool) -> None:
    """After a stop and a start, the server has the same address, token and key."""
    own_openbao.create_key(key_name, "ecdsa-p256")
    own_openbao.stop(kill=kill)
    assert own_openbao.health() is None
    own_openbao.start()
    sign_and_verify(own_openbao, key_name)


def test_it_seals_and_unseals(own_openbao: OpenBao, key_name: str) -> None:
    """A sealed server answers, and signs nothing until it is unsealed."""
    own_openbao.create_key(key_name, "ecdsa-p256")
    own_openbao.seal()
    assert own_openbao.health() == 503
    with pytest.raises(hvac.exceptions.VaultDown):
        sign_and_verify(own_openbao, key_name)
    own_openbao.unseal()
    sign_and_verify(own_openbao, key_name)


def test_tls_needs_the_authority(tmp_path: Path, key_name: str) -> None:
    """Only clients with its CA trust a server with a certificate."""
    with OpenBao(tmp_path, certificates=make_certificates(tmp_path)) as bao:
        bao.create_key(key_name, "ecdsa-p256")
        sign_and_verify(bao, key_name)
        with pytest.raises(requests.exceptions.SSLError):
            get(bao.url)


def test_a_standby_answers_beside_its_leader(own_openbao: OpenBao, tmp_path: Path, key_name: str) -> None:
    """A second node of the cluster says that it is a standby, and has the first one's keys."""
    own_openbao.create_key(key_name, "ecdsa-p256")
    with OpenBao(tmp_path, standby_of=own_openbao) as standby:
        assert (own_openbao.health(), standby.health()) == (200, 429)
        sign_and_verify(standby, key_name)


def test_a_policy_and_a_revocation_bind_a_token(openbao: OpenBao, key_name: str) -> None:
    """A token may do what its policy says, as long as it is not revoked."""
    openbao.create_key(key_name, "ecdsa-p256")
    openbao.write_policy(key_name, f'path "transit/keys/{key_name}" {{ capabilities = ["read"] }}')
    token = openbao.token([key_name], "1m")
    client = openbao.client(token)
    client.secrets.transit.read_key(key_name)
    with pytest.raises(hvac.exceptions.Forbidden):
        client.secrets.transit.rotate_key(key_name)
    openbao.revoke(token)
    with pytest.raises(hvac.exceptions.Forbidden):
        client.secrets.transit.read_key(key_name)


def test_approle_logs_in(openbao: OpenBao) -> None:
    """An AppRole's IDs give a token with the lifetime of its role."""
    role = enable_approle(openbao, token_policies=["signer"], token_ttl="7s")
    auth = openbao.client().auth.approle.login(role.role_id, role.secret_id, use_token=False)["auth"]
    assert (auth["lease_duration"], auth["policies"]) == (7, ["default", "signer"])


def test_jwt_logs_in(openbao: OpenBao) -> None:
    """A JWT of the issuer gives a token; one that has expired does not."""
    role = enable_jwt(openbao, token_policies=["signer"])
    login = openbao.client().auth.jwt.jwt_login
    assert login(role.role, role.issuer.issue(), use_token=False)["auth"]["client_token"]
    with pytest.raises(hvac.exceptions.InvalidRequest, match="expired"):
        login(role.role, role.issuer.issue(lifetime=-600), use_token=False)


def test_kubernetes_logs_in(openbao: OpenBao, tmp_path: Path) -> None:
    """A service account's token gives a token of OpenBao's, until the cluster does not know it any more."""
    with FakeKubernetes(make_certificates(tmp_path)) as cluster:
        role = enable_kubernetes(openbao, cluster, token_policies=["signer"])
        login, token = openbao.client().auth.kubernetes.login, cluster.token()
        assert login(role, token, use_token=False)["auth"]["client_token"]
        cluster.forget(token)
        with pytest.raises(hvac.exceptions.Forbidden):
            login(role, token, use_token=False)


def test_the_proxy_hangs_delays_and_passes(openbao: OpenBao) -> None:
    """A change of the proxy applies to its open connections."""
    with Proxy(openbao.port) as proxy, requests.Session() as session:

        def ask() -> int:
            return session.get(f"{proxy.url}/v1/sys/health", timeout=(5, 0.5)).status_code

        assert ask() == 200
        proxy.hang()
        with pytest.raises(requests.exceptions.ReadTimeout):
            ask()
        proxy.let_pass()
        assert ask() == 200
        assert proxy.accepted == 2
        proxy.delay(0.2)
        begun = time.monotonic()
        assert ask() == 200
        assert time.monotonic() - begun >= 0.2
        assert proxy.accepted == 2


def test_the_proxy_refuses(openbao: OpenBao) -> None:
    """A refused connection ends in an error; a later one is as good as ever."""
    with Proxy(openbao.port) as proxy:
        proxy.refuse()
        with pytest.raises(requests.exceptions.ConnectionError):
            get(proxy.url)
        proxy.let_pass()
        assert get(proxy.url) == 200


def test_the_proxy_cuts(openbao: OpenBao) -> None:
    """A connection that waits for its answer is dropped; the next one is not."""
    with Proxy(openbao.port) as proxy:
        proxy.hang()
        with connection(proxy.port, within=HANG_SECONDS) as waiting:
            wait_until(lambda: proxy.accepted == 1, within=HANG_SECONDS, what="the proxy has accepted")
            proxy.cut()
            assert read_to_end(waiting).received == b""
        proxy.let_pass()
        assert get(proxy.url) == 200


def test_the_proxy_trickles() -> None:
    """An answer comes byte by byte, so that no pause is long and the whole is."""
    with FakeServer(lambda _: Reply(200, b"ok")) as server, Proxy(server.port) as proxy:
        proxy.trickle(0.002)
        begun = time.monotonic()
        assert get(proxy.url) == 200
        assert time.monotonic() - begun > 0.2  # it has more than a hundred bytes


def test_the_fake_server_answers_as_configured() -> None:
    """An answer that no server here would give arrives as it was written, and the request is kept."""
    with FakeServer(lambda _: Reply(473, {"standby": True}, {"retry-after": "1"})) as server:
        answer = requests.post(f"{server.url}/v1/x?y=1", json={"a": 1}, timeout=HANG_SECONDS)
        assert (answer.status_code, answer.json()) == (473, {"standby": True})
        assert answer.headers["retry-after"] == "1"
        (request,) = server.requests
        assert (request.method, request.path, request.json) == ("POST", "/v1/x?y=1", {"a": 1})
