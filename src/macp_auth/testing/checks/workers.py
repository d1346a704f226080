"""Workers: every process opens the prepared state with the same keys."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from msgspec import Struct

from macp_auth.adapters.plugins import available_signers, load_signer_plugin
from macp_auth.domain.keys import Algorithm, KeyVersion
from macp_auth.testing.bench import new_input
from macp_auth.testing.checks.rotation import kids_survive_a_worker
from macp_auth.testing.checks.signatures import fresh_nonces
from macp_auth.testing.judge import ES256_BYTES, judge
from macp_auth.testing.registry import Nonconformity, Skipped, check
from macp_auth.testing.watched import WatchedSubject, place

_WORKER_SECONDS = 30.0  # to start Python and import a plugin, on a busy machine
_FORKS = 2
_CLEAN = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
"""A process that has imported the kit, but no plugin: it starts 20 times as fast as one that imports all."""


class _Answer(Struct, frozen=True):
    """What a worker has and signs."""

    kids: list[str]
    signatures: list[tuple[KeyVersion, bytes, bytes]]


@check(
    "A spawned worker has the same kids, and signs",
    source="the service spawns its workers",
    needs=(fresh_nonces, kids_survive_a_worker),
)
async def spawned_worker(subject: WatchedSubject) -> None:
    """Open in a new process, and verify its signatures with the keys of this one."""
    prepared = await subject.prepare()
    async with subject.opened(prepared) as signer:
        versions = await signer.key_versions()
    for answer in await asyncio.to_thread(_in_worker, subject, prepared, 0):
        _judge_all(versions, answer)


@check(
    "Forked workers have the same kids, and different nonces",
    source="another server may fork; FIPS 186-5, section 6.3",
    needs=(spawned_worker,),
)
async def forked_workers(subject: WatchedSubject) -> None:
    """Open in two forks of a new process, which share its imported modules."""
    if "fork" not in multiprocessing.get_all_start_methods():
        raise Skipped("this system has no fork")
    prepared = await subject.prepare()
    async with subject.opened(prepared) as signer:
        versions = await signer.key_versions()
    answers = await asyncio.to_thread(_in_worker, subject, prepared, _FORKS)
    for answer in answers:
        _judge_all(versions, answer)
    r_values = [
        signature[: ES256_BYTES // 2]
        for answer in answers
        for version, _, signature in answer.signatures
        if version.algorithm is Algorithm.ES256
    ]
    if len(set(r_values)) < len(r_values):
        raise Nonconformity(
            "two forked workers used the same ECDSA nonce, which reveals the private key: do not seed a "
            "random generator when the plugin is imported"
        )


def _judge_all(versions: Sequence[KeyVersion], answer: _Answer) -> None:
    here = {version.kid: version for version in versions}
    for version, signing_input, signature in answer.signatures:
        if version.kid not in here or here[version.kid].public_jwk != version.public_jwk:
            raise Nonconformity(
                f"a worker has the key {version.kid!r}, but its parent does not: make keys in prepare(), "
                "not in open()"
            )
        judge(here[version.kid], signing_input, signature, versions)
    if answer.kids != list(here):
        raise Nonconformity(
            "a worker has the versions in another order, which decides which one signs: sort them by what is "
            "equal everywhere; sets and hash() differ between processes"
        )


def _in_worker(subject: WatchedSubject, prepared: bytes, forks: int) -> list[_Answer]:
    """Return the signatures of a spawned process, or of each of its forks."""
    context: Any = multiprocessing.get_context(_CLEAN)
    if _CLEAN == "forkserver":
        context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe(duplex=False)
    try:
        work = pickle.dumps((_opening(subject), prepared, dict(os.environ)))
    except Exception as error:  # noqa: BLE001 - an object's methods may raise anything
        raise Nonconformity(
            f"another process can't find open, {subject.plugin.open!r} ({type(error).__name__}): "
            "make it a function of a module, or install the plugin"
        ) from None
    process = context.Process(target=_work, args=(theirs, work, forks), daemon=False)
    process.start()
    theirs.close()
    try:
        found = [_received(ours) for _ in range(max(1, forks))]
    finally:
        process.join(5)
        if process.exitcode is None:
            process.kill()
            process.join()
    return found


def _received(pipe: Connection) -> _Answer:
    if not pipe.poll(_WORKER_SECONDS):
        raise Nonconformity(f"a worker process did not answer within {_WORKER_SECONDS:g} s")
    try:
        answer: _Answer | str = pipe.recv()
    except EOFError:
        raise Nonconformity("a worker process died before it signed") from None
    if isinstance(answer, str):
        raise Nonconformity(f"in a worker process, {answer}")
    return answer


def _opening(subject: WatchedSubject) -> Any:
    """Return how another process finds ``open``: by the plugin's name, as the host does, or the function."""
    name = subject.plugin.name
    return name if name in available_signers() else subject.plugin.open


def _work(pipe: Connection, work: bytes, forks: int) -> None:
    opening, prepared, environ = pickle.loads(work)  # noqa: S301 - from our own parent
    os.environ.clear()  # of the fork server, which may have begun under another one
    os.environ.update(environ)
    if isinstance(opening, str):
        opening = load_signer_plugin(opening).open
    work_here = partial(_sign_and_send, pipe, opening, prepared)
    if not forks:
        work_here()
        return
    context = multiprocessing.get_context("fork")
    for _ in range(forks):  # one after the other: they share the pipe
        child = context.Process(target=work_here)
        child.start()
        child.join(_WORKER_SECONDS)


def _sign_and_send(pipe: Connection, opening: Any, prepared: bytes) -> None:
    async def sign() -> _Answer:
        signer = opening(pickle.loads(prepared))  # noqa: S301 - from our own parent
        try:
            versions = await signer.key_versions()
            inputs = [(version, new_input()) for version in versions if version.can_sign for _ in range(2)]
            signatures = [(version, text, await signer.sign(version.kid, text)) for version, text in inputs]
            return _Answer([version.kid for version in versions], signatures)
        finally:
            await signer.aclose()

    try:
        pipe.send(asyncio.run(sign()))
    except BaseException as error:  # noqa: BLE001 - reported to the parent
        pipe.send(f"the signer raised {type(error).__name__} ({place(error)})")
