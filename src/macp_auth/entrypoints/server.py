"""Processes, the listening socket and signals.

uvicorn serves, and supervises the workers. Its parser is the reason (design: CL+TE and bare LF
must be refused; granian's lets them pass). The socket is bound once, here: with SO_REUSEPORT two
services could share a port in silence, each with keys of its own.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
from functools import partial
from types import FrameType
from typing import NoReturn

import uvicorn
from litestar.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess

from macp_auth.entrypoints.bootstrap import ServicePlan, build_service
from macp_auth.entrypoints.logs import configure_logs
from macp_auth.entrypoints.protocol import StrictHTTPProtocol
from macp_auth.entrypoints.settings import ConfigurationError, Settings

KEEP_ALIVE_SECONDS = 65
"""Longer than the 60 s after which the usual load balancers drop an idle connection: they, not we,
should be the ones to close, or they may send a request into a closing socket."""
SHUTDOWN_SECONDS = 8
"""The most that a stop may take; more than protocol.DRAIN_RECEIVE_SECONDS, less than 10."""


def serve(plan: ServicePlan, listener: socket.socket) -> int:
    """Serve on ``listener`` until told to stop; return the exit status."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _exit_cleanly)
    config = uvicorn.Config(
        partial(_worker_app, plan),
        factory=True,
        http=StrictHTTPProtocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        workers=plan.settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    if plan.settings.workers == 1:
        uvicorn.Server(config).run([listener])
        return 0
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)  # here it says which worker died
    supervisor = _Supervisor(config, [listener])
    supervisor.run()
    failed = any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
    return STARTUP_FAILURE if failed else 0


def listen(settings: Settings) -> socket.socket:
    """Return the bound and listening socket.

    Raises:
        ConfigurationError: the address can't be listened on.
    """
    host, port = settings.host, settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=2048, reuse_port=False)
    except (OSError, UnicodeError) as error:
        reason = _reason(error)
        raise ConfigurationError(
            f"can't listen on port {port} of MACP_AUTH_HOST: {reason}. "
            "Stop what listens there, or set PORT (--port) or MACP_AUTH_HOST (--host)"
        ) from error


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "not a host name"
    if isinstance(error, socket.gaierror):
        return error.strerror or "unknown host"  # its numbers are not errno's
    return os.strerror(error.errno or 0)  # create_server's own text repeats the address


def _exit_cleanly(_signum: int, _frame: FrameType | None) -> NoReturn:
    """Exit 0: during start-up at once, later when uvicorn, its work done, raises the signal again."""
    raise SystemExit(0)


class _Supervisor(Multiprocess):
    """Starts the workers, and again when they die."""

    def init_processes(self) -> None:
        """Start all with SIGINT ignored, until uvicorn handles it there.

        Ctrl-C reaches the workers too, and one that is still starting would print a traceback.
        """
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            super().init_processes()
        finally:
            signal.signal(signal.SIGINT, handler)


def _worker_app(plan: ServicePlan) -> ASGIApp:
    """Build the application; in a worker process, also what the parent process has set up for itself."""
    if (parent := multiprocessing.parent_process()) is not None:
        configure_logs()
        watch = partial(_stop_when_orphaned, parent.sentinel)
        threading.Thread(target=watch, daemon=True, name="parent-watch").start()
    return build_service(plan)


def _stop_when_orphaned(parent_sentinel: int) -> None:
    """A worker whose supervisor was killed would hold the port for ever, with nobody to stop it."""
    multiprocessing.connection.wait([parent_sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
