"""The settings of a plugin: a type that can't be used is found before its variable is set."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct

from macp_auth import Secret, SignerMisconfigured, SignerPlugin
from macp_auth.adapters.plugins import BUILT_IN, BUILT_IN_FALLBACKS, BUILT_IN_SECRETS, load_signer_plugin
from macp_auth.adapters.signers.local import LocalSigner
from macp_auth.domain.errors import ConfigurationError
from macp_auth.entrypoints.environment import PREFIX, unread_variables, variables
from macp_auth.entrypoints.settings import Settings
from macp_auth.entrypoints.signers.settings import (
    declared_secrets,
    read_signer_settings,
    secret_variables,
    unusable_settings,
)


def plugin(settings: Any) -> SignerPlugin:
    return SignerPlugin(
        name="odd", settings=settings, settings_prefix="ODD_", prepare=lambda _: None, open=LocalSigner
    )


def with_field(annotation: Any) -> SignerPlugin:
    return plugin(msgspec.defstruct("OddSettings", [("field", annotation, None)]))


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Annotated[str | None, Meta(min_length=1)], "Can only set `min_length`"),
        (Annotated[Secret[str], Meta(min_length=1)], "Can only set `min_length`"),
        (int | Secret[str], "unions containing a custom type"),
        (complex | None, "its type is not supported by msgspec"),
        (list[int], "no text can be converted to its type"),
        (Annotated[dict[str, str] | None, Meta(description="x")], "no text can be converted to its type"),
        ("NoSuchName", "an annotation of OddSettings can't be resolved .NameError"),
    ],
    ids=str,
)
def test_an_unusable_field_is_named_though_it_is_not_set(annotation: Any, message: str) -> None:
    """The text names the plugin, the field and the variable."""
    with pytest.raises(ConfigurationError, match=f"plugin 'odd' can't be configured: .*{message}") as caught:
        read_signer_settings(with_field(annotation), {})
    if isinstance(annotation, str):
        return
    assert "the field 'field' of OddSettings can't be read from ODD_FIELD" in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Annotated[str, Meta(min_length=1)] | None, "x"),
        (Annotated[float, Meta(ge=0.5, description="x")], "1.5"),
        (Secret[str] | None, "x"),
        (re.Pattern[str], "x+"),
        (bool, "1"),
    ],
    ids=str,
)
def test_usable_fields_are_read(annotation: Any, text: str) -> None:
    """What the page for authors says works."""
    assert read_signer_settings(with_field(annotation), {"ODD_FIELD": text}).field  # type: ignore[attr-defined]


@pytest.mark.parametrize("settings", [dict, None, with_field(str).settings("x")], ids=str)
def test_settings_must_be_a_struct_type(settings: Any) -> None:
    with pytest.raises(ConfigurationError, match="'odd' .* no subclass of msgspec.Struct"):
        read_signer_settings(plugin(settings), {})


def test_the_built_in_signers_are_usable() -> None:
    assert [fault for name in BUILT_IN for fault in unusable_settings(load_signer_plugin(name))] == []


class Checked(Struct):
    field: str

    def __post_init__(self) -> None:
        if self.field == "s3cret":
            raise ValueError(self.field)
        raise SignerMisconfigured("ODD_FIELD is not good")


def test_a_settings_type_may_refuse_what_it_is_given() -> None:
    """In its own words if they are an error of ours; else without them."""
    with pytest.raises(SignerMisconfigured, match="ODD_FIELD is not good"):
        read_signer_settings(plugin(Checked), {"ODD_FIELD": "x"})
    with pytest.raises(ConfigurationError, match="'odd' raised ValueError") as caught:
        read_signer_settings(plugin(Checked), {"ODD_FIELD": "s3cret"})
    assert "s3cret" not in str(caught.value)


def test_the_secrets_of_our_signers_are_known_without_importing_them() -> None:
    """What their settings types declare, and no other."""
    declared = {secret for name in BUILT_IN for secret in declared_secrets(load_signer_plugin(name))}
    assert declared == {*BUILT_IN_SECRETS, *BUILT_IN_FALLBACKS}


def test_a_variable_of_a_signer_that_is_not_selected_is_no_slip() -> None:
    """The remedy is to select its signer, and not another variable, where a path or a key would be wrong."""
    plugins = map(load_signer_plugin, BUILT_IN)
    declared = [[each.name for each in variables(one.settings, one.settings_prefix)] for one in plugins]
    of_the_service = [each.name for each in variables(Settings, PREFIX)]
    every = dict.fromkeys([name for names in declared for name in names], "x")
    for names in declared:
        unread = unread_variables(every, [*names, *of_the_service])
        assert unread
        assert {each.remedy.partition(", or unset ")[0] for each in unread} == {
            "correct the name, select the signer that reads it"
        }


def test_a_plugin_keeps_the_variables_that_its_own_library_may_read() -> None:
    """Of our signers' secrets only those with our prefix are taken from it."""
    secrets = secret_variables(declared_secrets(with_field(Secret[str] | None)), built_in=False)
    assert sorted([*BUILT_IN_SECRETS, "ODD_FIELD"]) == secrets
