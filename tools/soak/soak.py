"""Steady load on services for as long as asked, while what they hold of the system is watched."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct

from tools.support.clients import Clients, p99
from tools.support.openbao import OpenBao
from tools.support.processes import family
from tools.support.service import Service
from tools.support.vault_environment import with_token

CLIENTS = 8
PAUSE = 0.08  # seconds: about a hundred tokens a second, of which half a machine can verify every one
REQUESTS_A_CONNECTION = 20
MOST_GROWTH = 0.05  # of some 60 MiB: what a leak of 90 bytes a token comes to in ten minutes
_WARM_UP = 0.25  # of the time; at full speed, so that pools and caches get as large as they will
_SAMPLE_SECONDS = 0.5
_WINDOW = 5  # the first and the last of so many parts of the steady time are compared

Signing = Callable[[Path], AbstractContextManager[Mapping[str, str]]]
"""The environment of a service, in a directory for its files, for as long as its signer is needed."""


class Sample(Struct, frozen=True):
    """What a service's process holds."""

    mib: float
    """Resident memory."""
    descriptors: int
    threads: int


class Report(Struct, frozen=True, kw_only=True):
    """How one service held up."""

    name: str
    seconds: float
    tokens: int
    p99: float
    failures: list[str]
    before: Sample
    """Medians after the warm-up."""
    after: Sample
    """Medians in the end."""

    @property
    def growth(self) -> float:
        """Of resident memory, as a part of what it was after the warm-up."""
        return self.after.mib / self.before.mib - 1

    @property
    def faults(self) -> list[str]:
        """All that should not be, in words. Empty if it passed."""
        faults = [f"{len(self.failures)} requests failed: {self.failures[:3]}"] if self.failures else []
        if self.growth >= MOST_GROWTH:
            faults.append(f"memory grew by {self.growth:.1%}")
        if self.after.descriptors > self.before.descriptors:
            faults.append(f"descriptors: {self.before.descriptors}, then {self.after.descriptors}")
        if self.after.threads > self.before.threads:
            faults.append(f"threads: {self.before.threads}, then {self.after.threads}")
        return [f"{self.name}: {fault}" for fault in faults]

    def __str__(self) -> str:
        before, after = self.before, self.after
        return (
            f"{self.name}: {self.tokens} tokens verified in {self.seconds:.0f} s, "
            f"{len(self.failures)} failed, p99 {self.p99 * 1000:.1f} ms; "
            f"memory {before.mib:.1f} to {after.mib:.1f} MiB ({self.growth:+.1%}), "
            f"descriptors {before.descriptors} to {after.descriptors}, "
            f"threads {before.threads} to {after.threads}"
        )


@contextmanager
def ephemeral(_directory: Path) -> Iterator[dict[str, str]]:
    """The environment of a service with a key of its own."""
    yield {"MACP_AUTH_SIGNING_ALG": "ES256"}


@contextmanager
def vault_transit(directory: Path) -> Iterator[dict[str, str]]:
    """The environment of a service that signs with a real OpenBao."""
    with OpenBao(directory) as bao:
        bao.create_key("soak", "ecdsa-p256")
        # The warm-up is to see the keys read beside the signatures, for which there is a connection, too.
        yield with_token(bao, "soak", MACP_AUTH_KEY_REFRESH_SECONDS=1)


SIGNERS: Mapping[str, Signing] = {"ephemeral": ephemeral, "vault-transit": vault_transit}


def run_soak(
    seconds: float,
    directory: Path,
    signers: Mapping[str, Signing] = SIGNERS,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> list[Report]:
    """Load one service a signer, all at once. All that this starts is gone afterwards."""
    with ExitStack() as stack:
        services: dict[str, Service] = {}
        for name, signing in signers.items():
            environment = stack.enter_context(signing(directory))
            services[name] = stack.enter_context(Service(directory, environment))
        began = time.monotonic()
        steady_from, end = began + seconds * _WARM_UP, began + seconds
        clients = {name: stack.enter_context(_clients(service)) for name, service in services.items()}
        time.sleep(seconds * _WARM_UP)
        for each in clients.values():
            each.pause = PAUSE
        samples: dict[str, list[Sample]] = {name: [] for name in signers}
        say(f"warmed up; {end - time.monotonic():.0f} s of steady load to come")
        while time.monotonic() < end:
            time.sleep(_SAMPLE_SECONDS)
            for name, service in services.items():
                samples[name].append(_sample(service))
    return [
        Report(
            name=name,
            seconds=seconds,
            tokens=len(each.attempts) - len(each.failed),
            p99=p99(each.since(steady_from + 1)),
            failures=[attempt.failure for attempt in each.failed],
            before=_median(samples[name][: len(samples[name]) // _WINDOW]),
            after=_median(samples[name][-(len(samples[name]) // _WINDOW) :]),
        )
        for name, each in clients.items()
    ]


def _clients(service: Service) -> Clients:
    return Clients(service.port, service.jwks(), count=CLIENTS, requests_a_connection=REQUESTS_A_CONNECTION)


def _sample(service: Service) -> Sample:
    processes = family(service)  # with that of a plugin
    return Sample(
        sum(process.memory_info().rss for process in processes) / 2**20,
        sum(process.num_fds() for process in processes),
        sum(process.num_threads() for process in processes),
    )


def _median(samples: list[Sample]) -> Sample:
    return Sample(
        statistics.median(sample.mib for sample in samples),
        round(statistics.median(sample.descriptors for sample in samples)),
        round(statistics.median(sample.threads for sample in samples)),
    )
