"""The API server itself believes our tokens, by discovery at our issuer."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.request
from pathlib import Path
from urllib.error import URLError

from cryptography import x509

from tests.cluster.namespace import Namespace, Values
from tools.cluster.node import API, trust_issuers
from tools.cluster.programs import Programs
from tools.support.service import wait_until
from tools.support.tls import Authority

_FOLLOWS_SECONDS = 180  # the API server looks at its file each minute, and then asks the issuer


def test_our_token_is_a_user(
    namespace: Namespace, cluster_folder: Path, programs: Programs, tmp_path: Path
) -> None:
    host = f"macp-auth.{namespace.name}.svc.cluster.local"
    issuer = f"https://{host}:3200"
    authority = Authority(tmp_path)
    server = authority.issue("server", names=[x509.DNSName(host)])
    files = {"tls.crt": server.certificate.read_text(), "tls.key": server.key.read_text()}
    namespace.create_secret("tls", files)
    namespace.upgrade(values(issuer))

    issuer_of_users = {
        "url": issuer,
        "audiences": ["kubernetes"],
        "certificateAuthority": authority.path.read_text(),
    }
    username = {"claim": "sub", "prefix": "macp:"}
    trust_issuers(cluster_folder, [{"issuer": issuer_of_users, "claimMappings": {"username": username}}])

    try:
        wait_until(
            lambda: whoami(programs, cluster_folder, mint(issuer, authority)) == "macp:risk-agent",
            within=_FOLLOWS_SECONDS,
            what="the API server knows the user of our token",
        )
    finally:
        trust_issuers(cluster_folder, [])


def values(issuer: str) -> Values:
    return {
        "config": {
            "issuer": issuer,
            "audience": "kubernetes",
            "tlsCertFile": "/tls/tls.crt",
            "tlsKeyFile": "/tls/tls.key",
        },
        "extraVolumes": [{"name": "tls", "secret": {"secretName": "tls", "defaultMode": 0o440}}],
        "extraVolumeMounts": [{"name": "tls", "mountPath": "/tls", "readOnly": True}],
    }


def mint(issuer: str, authority: Authority) -> str:
    """A token; nothing while the Service does not answer."""
    request = urllib.request.Request(
        f"{issuer}/tokens",
        data=json.dumps({"sender": "risk-agent"}).encode(),
        headers={"content-type": "application/json"},
    )
    context = ssl.create_default_context(cafile=authority.path)
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as response:
            token: str = json.load(response)["token"]
    except URLError:  # the node's proxy does not route to the Service yet
        return ""
    return token


def whoami(programs: Programs, folder: Path, token: str) -> str:
    """Whom the API server takes the bearer of the token for; nothing if it refuses it."""
    command: list[str | Path] = [
        programs.kubectl, "--kubeconfig=/dev/null", f"--server={API}", f"--token={token}",
        f"--certificate-authority={folder}/pki/ca.pem", "auth", "whoami", "--output=json",
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if run.returncode != 0:
        return ""
    username: str = json.loads(run.stdout)["status"]["userInfo"]["username"]
    return username
