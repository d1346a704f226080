"""The host's conformance kit, with keys of either algorithm, over TLS with the credentials of an account."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from typing import Any

import grpc
import pytest

from macp_auth.testing import SignerSubject
from macp_auth.testing.suite import SignerConformance
from macp_auth_gcp_kms import macp_auth_signer

pytestmark = pytest.mark.slow  # the whole kit on a server

METHODS = ("ListCryptoKeyVersions", "GetPublicKey", "AsymmetricSign")


class Subject(SignerSubject):
    """A key whose versions are added to, on a Cloud KMS that can be stopped and can hang."""

    def __init__(self, kms: Any, algorithm: str, secret: str) -> None:
        variables = {
            "MACP_AUTH_GCP_KMS_KEY": kms.key,
            "MACP_AUTH_GCP_KMS_ENDPOINT": kms.url,
            "MACP_AUTH_GCP_KMS_TIMEOUT_SECONDS": "10",  # the fake shares two cores with much else
        }
        super().__init__(macp_auth_signer(), variables)
        self._kms, self._algorithm, self._secret = kms, algorithm, secret
        kms.create(algorithm)

    async def rotate(self) -> None:
        await asyncio.to_thread(self._kms.create, self._algorithm)

    async def break_backend(self) -> None:
        await asyncio.to_thread(self._kms.stop)

    async def hang_backend(self) -> None:
        self._kms.go_on.clear()

    async def refuse_backend(self) -> None:
        for method in METHODS:
            self._kms.refuse(method, grpc.StatusCode.PERMISSION_DENIED)

    async def garble_backend(self) -> None:
        for method in METHODS:
            self._kms.garble(method)

    async def restore_backend(self) -> None:
        await asyncio.to_thread(self._kms.behave)

    def secrets(self) -> Collection[str]:
        return [self._secret]


class TestGCPKMS(SignerConformance):
    """Each check of the kit is one test."""

    @pytest.fixture(params=["RSA_SIGN_PKCS1_2048_SHA256", "EC_SIGN_P256_SHA256"])
    def subject(self, google: Any, request: pytest.FixtureRequest) -> Iterator[SignerSubject]:
        with google.kms() as kms:
            yield Subject(kms, request.param, google.secret)
