"""The rules for every signer: macp-auth's conformance kit."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
from macp_auth.testing import SignerSubject
from macp_auth.testing.suite import SignerConformance

from macp_auth_example import macp_auth_signer


class Subject(SignerSubject):
    """This plugin. Its backend, a file that is read once, can't be rotated, broken or made to hang."""

    def secrets(self) -> Collection[bytes]:
        """Return what no output may show."""
        return [Path(self.environ["MACP_AUTH_EXAMPLE_KEY_FILE"]).read_bytes()]


class TestExample(SignerConformance):
    """Each check of the kit is one test."""

    @pytest.fixture
    def subject(self, key_file: Path) -> SignerSubject:
        """Return the plugin with its settings."""
        return Subject(macp_auth_signer(), {"MACP_AUTH_EXAMPLE_KEY_FILE": str(key_file)})
