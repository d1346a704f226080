"""Declarations: what the plugin says about itself, before anything is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from macp_auth.adapters.hookspecs import MAX_SIGN_SECONDS, SignerPlugin
from macp_auth.adapters.plugins import BUILT_IN, check_api_version
from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.entrypoints.environment import variables
from macp_auth.entrypoints.signers.declarations import (
    MAX_CONCURRENT_SIGNS,
    environment_fault,
    names_variables,
    prefix_fault,
    variables_fault,
)
from macp_auth.entrypoints.signers.settings import unusable_settings
from macp_auth.testing.registry import Nonconformity, check
from macp_auth.testing.watched import WatchedSubject


@check("The fields of SignerPlugin have the right types, and are in range", source="the plugin API")
async def declares_its_limits(subject: WatchedSubject) -> None:
    """Check all fields but the settings and their prefix."""
    for fault in _faults(subject.plugin):
        raise Nonconformity(fault)


def _faults(plugin: SignerPlugin) -> Iterator[str]:
    if not isinstance(plugin.name, str) or not plugin.name.strip():
        yield f"name is {plugin.name!r}: it must be the name of the entry point"
    try:
        check_api_version(plugin)
    except SignerMisconfigured as error:
        yield f"api_version is {plugin.api_version!r}: {error}"
    if type(plugin.durable) is not bool:
        yield f"durable is {plugin.durable!r}: it must be True or False"
    for name, call in (("prepare", plugin.prepare), ("open", plugin.open), ("diagnose", plugin.diagnose)):
        if not isinstance(call, Callable) and (call is not None or name != "diagnose"):  # type: ignore[arg-type]  # it works
            yield f"{name} is a {type(call).__name__}: it must be a function or a class"
    if not isinstance(plugin.environment, tuple) or not all(map(names_variables, plugin.environment)):
        yield (
            f"environment is {plugin.environment!r}: it must be a tuple of names of variables, with a star "
            "at most at the end, such as ('AWS_*',)"
        )
    elif fault := environment_fault(plugin.environment):
        yield fault
    if type(plugin.sign_seconds) not in (int, float) or not 0 < plugin.sign_seconds <= MAX_SIGN_SECONDS:
        yield f"sign_seconds is {plugin.sign_seconds!r}: it must be over 0, and at most {MAX_SIGN_SECONDS:g}"
    if type(plugin.concurrent_signs) is not int or not 1 <= plugin.concurrent_signs <= MAX_CONCURRENT_SIGNS:
        yield (
            f"concurrent_signs is {plugin.concurrent_signs!r}: it must be a whole number from 1 to "
            f"{MAX_CONCURRENT_SIGNS}"
        )


@check(
    "The prefix of the settings is the plugin's own, such as MACP_AUTH_ACME_",
    source="the process of a plugin gets all variables with its prefix",
)
async def prefix_is_its_own(subject: WatchedSubject) -> None:
    """Check its form, and that it is not the beginning of a variable of the service."""
    if subject.plugin.name in BUILT_IN:
        return  # they share the prefix of the service
    if fault := prefix_fault(subject.plugin.settings_prefix):
        raise Nonconformity(f"its prefix {fault}")


@check(
    "A variable can fill every setting's type, and is none of the service",
    source="the host reads each setting from a text, and gives its variable to the plugin",
    needs=(prefix_is_its_own,),
)
async def settings_are_usable(subject: WatchedSubject) -> None:
    """Check every field, also if its variable is not set."""
    for fault in unusable_settings(subject.plugin):
        raise Nonconformity(fault)
    declared = variables(subject.plugin.settings, subject.plugin.settings_prefix)
    names = [name for each in declared for name in each.names]
    if subject.plugin.name not in BUILT_IN and (foreign := variables_fault(names)):
        raise Nonconformity(f"its {foreign}: use another name")
