"""``macp-auth serve``."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from macp_auth.entrypoints.plan import ServicePlan
    from macp_auth.entrypoints.server.processes import Sockets

_STOPS = (signal.SIGTERM, signal.SIGINT)


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on. [MACP_AUTH_HOST, default 127.0.0.1]")
@click.option("--port", metavar="PORT", help="Port to listen on. [PORT, default 3200]")
@click.option(
    "--workers", metavar="N", help="Worker processes; all share one key. [MACP_AUTH_WORKERS, default 1]"
)
def serve(host: str | None, port: str | None, workers: str | None) -> None:
    """Serve until stopped (SIGTERM or Ctrl-C).

    Settings come from environment variables; an option overrides its variable.
    """
    for signum in _STOPS:
        signal.signal(signum, _exit_at_once)
    from macp_auth.entrypoints.custody import close_memory, forget_variables  # noqa: PLC0415

    close_memory()
    # structlog would load Rich, where it is, for a console that no log of ours uses: a tenth of the start.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # the documented way to make an import fail
    import structlog  # noqa: PLC0415 - like those below, slow and needed only here

    from macp_auth.adapters.audit.destination import check_destination  # noqa: PLC0415
    from macp_auth.adapters.audit.standard_output import reserve  # noqa: PLC0415
    from macp_auth.domain.errors import ConfigurationError  # noqa: PLC0415
    from macp_auth.entrypoints.logs import configure_logs  # noqa: PLC0415
    from macp_auth.entrypoints.plan import plan_service  # noqa: PLC0415
    from macp_auth.entrypoints.signers.hosted import started_signer  # noqa: PLC0415

    for signum in _STOPS:
        signal.signal(signum, _kill_signers_and_exit)
    configure_logs()
    output = reserve()
    options = {"MACP_AUTH_HOST": host, "PORT": port, "MACP_AUTH_WORKERS": workers}
    overrides = {name: value for name, value in options.items() if value is not None}
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(importlib.import_module, "macp_auth.entrypoints.composition")  # while a plugin loads
            plan = plan_service({**os.environ, **overrides}, started_signer)
        from macp_auth.entrypoints.composition import builders  # noqa: PLC0415
        from macp_auth.entrypoints.server import listening, processes  # noqa: PLC0415

        forget_variables(plan.secret_variables)
        for weakness in check_destination(plan.settings.audit_log, output):
            detail = f"MACP_AUTH_AUDIT_LOG: {weakness.text}; {weakness.remedy}"
            structlog.get_logger().warning("others can change the audit log", detail=detail)
        with listening.listen(plan.settings) as listener:
            keys = listening.listen_for_keys(plan.settings)
            metrics = listening.listen_for_metrics(plan.settings)
            sockets = processes.Sockets(listener, keys, metrics)
            _log_startup(plan, sockets)
            for signum in _STOPS:
                signal.signal(signum, _exit_in_order)
            sys.exit(processes.serve(plan.settings, builders(plan, output), sockets))
    except ConfigurationError as error:
        structlog.get_logger().critical("can't start", error=str(error))
        sys.exit(2)


def _log_startup(plan: ServicePlan, sockets: Sockets) -> None:
    """Log addresses and names, and what is unfit for production; ``KeyRefresher`` logs the signing key."""
    import structlog  # noqa: PLC0415

    from macp_auth.entrypoints.http import jwks, tokens  # noqa: PLC0415
    from macp_auth.entrypoints.server.listening import is_loopback  # noqa: PLC0415

    log = structlog.get_logger()
    settings = plan.settings
    base = _url(settings.host, sockets.main, tls=settings.tls is not None)
    log.info("listening", host=settings.host, port=settings.port, workers=settings.workers)
    log.info("identity", issuer=settings.issuer, audience=settings.audience)
    log.info("verification keys", jwks_url=base + jwks.PATH)
    if (keys := settings.jwks_address) is not None and sockets.keys is not None:
        tls = settings.tls is not None and settings.jwks_tls == "auto"
        url = _url(keys[0], sockets.keys, tls=tls) + jwks.PATH
        log.info("verification keys only", host=keys[0], port=keys[1], jwks_url=url)
    if (metrics := settings.metrics_address) is not None and sockets.metrics is not None:
        url = f"{_url(metrics[0], sockets.metrics, tls=False)}/metrics"
        log.info("metrics", host=metrics[0], port=metrics[1], metrics_url=url)
    log.info("minting", mint_url=f"POST {base}{tokens.PATH}")
    open_to_all = not settings.callers_enforced and settings.tls_client_ca_file is None
    if open_to_all and not is_loopback(settings.host):
        log.warning(
            "anyone who can reach this address can get a token: nobody has to authenticate",
            host=settings.host,
            remedy="set MACP_AUTH_CALLERS_FILE (docs/callers.md), or let only callers reach it (SECURITY.md)",
        )
    if settings.callers_mode == "report":
        log.warning(
            "callers file is not enforced",
            remedy="unset MACP_AUTH_CALLERS_MODE when no more refusals are reported that would be wrong",
        )
    if plan.signer == "ephemeral":
        log.warning(
            "ephemeral key: lost when the service stops, so a restart breaks every token, and replicas never "
            "agree. For development only; otherwise set MACP_AUTH_SIGNING_KEY_JSON or MACP_AUTH_SIGNER"
        )
    for unread in plan.unread_variables:
        log.warning(
            "variable is set, but nothing reads it",
            variable=unread.name,
            remedy=unread.remedy,
        )


def _url(host: str, listener: socket.socket, *, tls: bool) -> str:
    """Return a URL of ``listener`` on ``host``; all addresses are no address to connect to."""
    from macp_auth.entrypoints.server.listening import is_unspecified  # noqa: PLC0415

    address, port = listener.getsockname()[:2]
    if is_unspecified(address):
        host = "localhost"
    in_url = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{in_url}:{port}"


def _exit_at_once(_signum: int, _frame: FrameType | None) -> NoReturn:
    """Exit 0 while there is nothing to close.

    An exception could be raised inside a plugin, and be handled there or reported as the plugin's fault.
    """
    os._exit(0)


def _kill_signers_and_exit(_signum: int, _frame: FrameType | None) -> NoReturn:
    """Exit 0 while a signer prepares. Its process may be one that does not see the end of this one."""
    from macp_auth.adapters.sandbox.process import kill_all  # noqa: PLC0415 - loaded with the plan

    kill_all()
    os._exit(0)


def _exit_in_order(_signum: int, _frame: FrameType | None) -> NoReturn:
    """Exit 0 when uvicorn raises the signal again after its shutdown."""
    raise SystemExit(0)
