"""The processes that serve.

uvicorn serves, and supervises the workers. Its parser is the reason: CL+TE and bare LF must be
refused, and granian's lets them pass.
"""

from __future__ import annotations

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
from functools import cache, partial
from pathlib import Path

import uvicorn
from litestar.types import ASGIApp
from msgspec import Struct
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from macp_auth.domain.certificates import Validity
from macp_auth.entrypoints.logs import configure_logs
from macp_auth.entrypoints.server.connections import Connections
from macp_auth.entrypoints.server.custody import close_memory
from macp_auth.entrypoints.server.descriptors import connection_bound, raise_limit
from macp_auth.entrypoints.server.event_loop import EventLoop
from macp_auth.entrypoints.server.protocol import StrictHTTPProtocol
from macp_auth.entrypoints.server.shared_directory import shared_directory
from macp_auth.entrypoints.server.tls_reload import ReloadingContext
from macp_auth.entrypoints.settings import Settings, TLSFiles

KEEP_ALIVE_SECONDS = 65
"""Longer than the 60 s after which the usual load balancers drop an idle connection: they, not we,
should be the ones to close, or they may send a request into a closing socket."""
START_SECONDS = 60
"""How long a worker may take to import its code and answer, on a machine that is slow or throttled."""
SHUTDOWN_SECONDS = 8
"""The most that a stop may take; more than protocol.DRAIN_RECEIVE_SECONDS, less than 10."""


class Metered(Struct, frozen=True):
    """Where a worker counts, and what the server around the application has to count."""

    directory: Path
    connections: Connections
    certificates: Callable[[], Mapping[str, Validity]]


class Builders(Struct, frozen=True):
    """What makes the applications that are served."""

    service: Callable[[Metered | None], ASGIApp]
    """In each worker; picklable. The argument is None if nothing is counted."""
    metrics: Callable[[Path, Callable[[], Sequence[int]], Callable[[], int]], ASGIApp]
    """In the first process, from where the workers count, and what returns their process ids and restarts."""


def serve(
    settings: Settings, builders: Builders, listener: socket.socket, metrics: socket.socket | None = None
) -> int:
    """Serve on ``listener``, and metrics on the other, until told to stop; return the exit status.

    Args:
        settings: how to serve.
        builders: make what is served.
        listener: for callers.
        metrics: for Prometheus; None, nothing is counted.

    Raises:
        ConfigurationError: there is no place for what the workers count.
    """
    raise_limit()
    with nullcontext() if metrics is None else shared_directory() as directory:
        config = _configuration(settings, builders, directory)
        if settings.workers == 1:
            with _serving_metrics(
                builders, metrics, directory, pids=lambda: [os.getpid()], restarts=lambda: 0
            ):
                uvicorn.Server(config).run([listener])
            return 0
        logging.getLogger("uvicorn.error").setLevel(logging.INFO)  # here it says which worker died
        supervisor = _Supervisor(config, [listener])
        with _serving_metrics(builders, metrics, directory, supervisor.pids, supervisor.restarts):
            supervisor.run()
        failed = any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
        return STARTUP_FAILURE if failed else 0


class _Worker:
    """What a worker has one of. Made in the parent process, with the worker's configuration."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.tls: ReloadingContext | None = None

    def event_loop(self) -> EventLoop:
        """Return a new event loop, which accepts connections."""
        loop = EventLoop()
        loop.connections = self.connections
        return loop

    def certificates(self) -> Mapping[str, Validity]:
        """Return when each certificate begins and ends."""
        return {} if self.tls is None else self.tls.certificates


class _Configuration(uvicorn.Config):
    """Makes the event loop of a worker."""

    worker: _Worker

    def get_loop_factory(self) -> Callable[[], EventLoop]:
        """Return what makes it."""
        return self.worker.event_loop


def _configuration(settings: Settings, builders: Builders, metrics: Path | None) -> uvicorn.Config:
    worker = _Worker(
        Connections(connection_bound(settings.max_connections), settings.connection_max_age_seconds)
    )
    configuration = _Configuration(
        partial(_worker_app, builders, metrics, worker),
        factory=True,
        http=partial(StrictHTTPProtocol, connections=worker.connections),  # type: ignore[arg-type]  # is called only
        ws="none",
        lifespan="on",
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        ssl_context_factory=None if settings.tls is None else partial(_tls_context, worker, settings.tls),
    )
    configuration.worker = worker
    return configuration


def _serving_metrics(
    builders: Builders,
    listener: socket.socket | None,
    directory: Path | None,
    pids: Callable[[], Sequence[int]],
    restarts: Callable[[], int],
) -> AbstractContextManager[None]:
    if listener is None or directory is None:
        return nullcontext()
    # Here, because it brings prometheus-client: time and memory that only who wants metrics should pay.
    from macp_auth.entrypoints.server.metrics_listener import serving  # noqa: PLC0415

    return serving(listener, builders.metrics(directory, pids, restarts))


class _Supervisor(Multiprocess):
    """Starts the workers, and again when they die."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._restarts = 0
        self._starting: dict[Process, float] = {}  # until when: monotonic seconds

    def init_processes(self) -> None:
        """Start all with SIGINT ignored, until uvicorn handles it there.

        Ctrl-C reaches the workers too, and one that is still starting would print a traceback.
        """
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            super().init_processes()
        finally:
            signal.signal(signal.SIGINT, handler)
        self._expect(self.processes)

    def terminate_all(self) -> None:
        """Stop all, and hold the port no longer: while a worker drains, a new caller is to be refused."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def keep_subprocess_alive(self) -> None:
        """Replace those that died, and count them.

        While one starts, none is replaced: uvicorn takes a worker that does not answer within 5 s for one
        that hangs, and on a slow machine would kill each new one.
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
        """Ask new workers for their first answer, and give them time for it."""
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
        """Return the workers' process ids; one that takes another's place stands in its place."""
        return [process.pid for process in self.processes if process.pid is not None]

    def restarts(self) -> int:
        """Return how many workers died and were replaced."""
        return self._restarts


def _worker_app(builders: Builders, metrics: Path | None, worker: _Worker) -> ASGIApp:
    _set_up_worker()
    metered = None if metrics is None else Metered(metrics, worker.connections, worker.certificates)
    return builders.service(metered)


def _tls_context(worker: _Worker, files: TLSFiles, *_: object) -> ReloadingContext:
    _set_up_worker()  # uvicorn asks for this before the application
    context = worker.tls = ReloadingContext(files)
    context.follow()
    return context


@cache
def _set_up_worker() -> None:
    """Set up, in a worker process, what the parent process has set up for itself."""
    if (parent := multiprocessing.parent_process()) is not None:
        close_memory()
        configure_logs()
        watch = partial(_stop_when_orphaned, parent.sentinel)
        threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _stop_when_orphaned(parent_sentinel: int) -> None:
    """A worker whose supervisor was killed would hold the port for ever, with nobody to stop it."""
    multiprocessing.connection.wait([parent_sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
