"""The worker processes and their supervisor, both uvicorn's.

The reason for uvicorn is its parser, which refuses CL+TE and bare LF; granian's accepts them.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import uvicorn
from litestar.types import ASGIApp
from msgspec import Struct
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from macp_auth.domain.certificates import Validity
from macp_auth.entrypoints.custody import close_memory
from macp_auth.entrypoints.http.app import KEYS, MAIN, Applications
from macp_auth.entrypoints.logs import configure_logs
from macp_auth.entrypoints.server.connections import Connections
from macp_auth.entrypoints.server.descriptors import connection_bound, raise_limit
from macp_auth.entrypoints.server.event_loop import EventLoop, Listener
from macp_auth.entrypoints.server.shared_directory import shared_directory
from macp_auth.entrypoints.server.tls_reload import AnonymousContext, ReloadingContext
from macp_auth.entrypoints.settings import Settings

KEEP_ALIVE_SECONDS = 65
"""Longer than the usual 60 s of load balancers: if the service closed an idle connection first, they could
send a request into the closing socket."""
START_SECONDS = 60
"""How long a worker may take to import its code and answer, on a machine that is slow or throttled."""
SHUTDOWN_SECONDS = 8
"""Upper bound on a stop; more than protocol.DRAIN_RECEIVE_SECONDS, less than 10."""


class Metered(Struct, frozen=True):
    """The directory of a worker's metrics, and the sources outside of the application."""

    directory: Path
    connections: Mapping[str, Connections]
    """Of each listener, by its name."""
    certificates: Callable[[], Mapping[str, Validity]]


class Builders(Struct, frozen=True):
    """Factories of the applications."""

    service: Callable[[Metered | None], Applications]
    """Called in each worker; picklable. The argument is None without metrics."""
    metrics: Callable[[Path, Callable[[], Sequence[int]], Callable[[], int]], ASGIApp]
    """Called in the first process, with the workers' directory, and functions that return their process ids
    and the number of restarts."""


class Sockets(Struct, frozen=True):
    """The bound sockets; None for one that is off."""

    main: socket.socket
    keys: socket.socket | None
    metrics: socket.socket | None


def serve(settings: Settings, builders: Builders, sockets: Sockets) -> int:
    """Serve until a signal stops the service, and return the exit status.

    Args:
        settings: the settings of the service.
        builders: factories of the applications.
        sockets: what it serves on.

    Raises:
        ConfigurationError: there is no directory for the metrics.
    """
    raise_limit()
    listening = [sockets.main, *([] if sockets.keys is None else [sockets.keys])]
    metrics = sockets.metrics
    with nullcontext() if metrics is None else shared_directory() as directory:
        config = _configuration(settings, builders, directory)
        if settings.workers == 1:
            with _serving_metrics(
                builders, metrics, directory, pids=lambda: [os.getpid()], restarts=lambda: 0
            ):
                uvicorn.Server(config).run(listening)
            return 0
        logging.getLogger("uvicorn.error").setLevel(logging.INFO)  # logs which worker died
        supervisor = _Supervisor(config, listening)
        with _serving_metrics(builders, metrics, directory, supervisor.pids, supervisor.restarts):
            supervisor.run()
        failed = any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
        return STARTUP_FAILURE if failed else 0


class _Configuration(uvicorn.Config):
    """uvicorn's configuration with the service's event loop."""

    def get_loop_factory(self) -> Callable[[], EventLoop]:
        """Return the function that makes the event loop."""
        return EventLoop


def _configuration(settings: Settings, builders: Builders, metrics: Path | None) -> uvicorn.Config:
    return _Configuration(
        partial(_worker_app, settings, builders, metrics),
        factory=True,
        http=dict,  # type: ignore[arg-type]  # is called only; the event loop makes the protocol
        ws="none",
        lifespan="on",
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def _serving_metrics(
    builders: Builders,
    listener: socket.socket | None,
    directory: Path | None,
    pids: Callable[[], Sequence[int]],
    restarts: Callable[[], int],
) -> AbstractContextManager[None]:
    if listener is None or directory is None:
        return nullcontext()
    # Imported here, because prometheus-client costs time and memory.
    from macp_auth.entrypoints.server.metrics_listener import serving  # noqa: PLC0415

    return serving(listener, builders.metrics(directory, pids, restarts))


class _Supervisor(Multiprocess):
    """Starts the workers, and replaces those that die."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._restarts = 0
        self._starting: dict[Process, float] = {}  # until when: monotonic seconds

    def init_processes(self) -> None:
        """Start all workers with SIGINT ignored, until uvicorn handles it in each.

        Ctrl-C reaches the workers too; one that is still starting would print a traceback.
        """
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            super().init_processes()
        finally:
            signal.signal(signal.SIGINT, handler)
        self._expect(self.processes)

    def terminate_all(self) -> None:
        """Stop all workers, and close the port: while a worker drains, new connections are refused."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def keep_subprocess_alive(self) -> None:
        """Replace dead workers, and count them.

        While one starts, none is replaced: uvicorn kills a worker that does not answer within 5 s, which on
        a slow machine is each new one.
        """
        self._starting = {
            process: until for process, until in self._starting.items() if self._is_starting(process, until)
        }
        if self._starting:
            return
        before = [*self.processes]
        super().keep_subprocess_alive()
        replaced = [new for old, new in zip(before, self.processes, strict=True) if old is not new]
        self._restarts += len(replaced)
        self._expect(replaced)

    def _expect(self, processes: Iterable[Process]) -> None:
        """Ask new workers for their first answer, within :data:`START_SECONDS`."""
        for process in processes:
            process.parent_conn.send(b"ping")
            self._starting[process] = time.monotonic() + START_SECONDS

    @staticmethod
    def _is_starting(process: Process, until: float) -> bool:
        if not process.process.is_alive() or time.monotonic() > until:
            return False
        if not process.parent_conn.poll():
            return True
        process.parent_conn.recv()
        return False

    def pids(self) -> list[int]:
        """Return the workers' process ids; a replacement has the index of its predecessor."""
        return [process.pid for process in self.processes if process.pid is not None]

    def restarts(self) -> int:
        """Return how many workers died and were replaced."""
        return self._restarts


def _worker_app(settings: Settings, builders: Builders, metrics: Path | None) -> ASGIApp:
    """Set up this worker and its event loop; return the application with the lifespan."""
    _set_up_worker()
    names = [MAIN] if settings.jwks_address is None else [MAIN, KEYS]
    bound = connection_bound(settings.max_connections, len(names))
    connections = {name: Connections(name, bound, settings.connection_max_age_seconds) for name in names}
    tls = None if settings.tls is None else ReloadingContext(settings.tls)
    if tls is not None:
        tls.follow()
    certificates = partial(_certificates, tls)
    apps = builders.service(None if metrics is None else Metered(metrics, connections, certificates))
    listeners = [Listener(connections[MAIN], apps.service, tls)]
    if KEYS in connections:
        context = None if tls is None or settings.jwks_tls == "off" else AnonymousContext(tls)
        listeners.append(Listener(connections[KEYS], apps.keys, context))
    loop = asyncio.get_running_loop()
    assert isinstance(loop, EventLoop)  # noqa: S101 - for the type checker
    loop.expect(listeners)
    return apps.service


def _certificates(tls: ReloadingContext | None) -> Mapping[str, Validity]:
    """Return when each certificate begins and ends."""
    return {} if tls is None else tls.certificates


def _set_up_worker() -> None:
    """Set up a worker process as the parent process has set up itself."""
    if (parent := multiprocessing.parent_process()) is not None:
        close_memory()
        configure_logs()
        watch = partial(_stop_when_orphaned, parent.sentinel)
        threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _stop_when_orphaned(parent_sentinel: int) -> None:
    """Stop a worker whose supervisor was killed: it would keep the port open."""
    multiprocessing.connection.wait([parent_sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
