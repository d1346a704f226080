"""Several worker processes: one key, and a life of their own."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.support.users import require_view_of_services
from tools.support.processes import (
    all_gone,
    connection,
    family,
    mint_bytes,
    refuses_connections,
    workers_of,
)
from tools.support.service import BOOT_SECONDS, Service, wait_until
from tools.support.verifiers import verify_with_pyjwt
from tools.support.wire import read_answer

pytestmark = pytest.mark.slow  # services of their own

BACK_SECONDS = 30  # that it is back at all; how soon is the benchmark's
ORPHANED_SECONDS = 10


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers, for the tests that let them live."""
    with Service(tmp_path_factory.mktemp("workers"), {}, "--workers", "2") as running:
        wait_for_both(running)
        yield running


@pytest.fixture
def mortal_service(start_service: Callable[..., Service]) -> Service:
    """Two workers, for a test that does not."""
    running = start_service({}, "--workers", "2")
    wait_for_both(running)
    return running


def wait_for_both(service: Service) -> None:
    for worker in workers_of(service):
        jwks_of(service, worker)


@contextmanager
def stopped(worker: psutil.Process) -> Iterator[None]:
    """Let ``worker`` stand still for a moment; the supervisor would kill it after five seconds."""
    worker.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            worker.resume()


def jwks_of(service: Service, worker: psutil.Process) -> object:
    """The keys that this very worker publishes: the others stand still."""
    [other] = [process for process in workers_of(service) if process != worker]
    with stopped(other):
        return service.jwks()


def test_a_worker_that_starts_slowly_is_not_killed(tmp_path: Path) -> None:
    """Or a slow machine would start workers for ever: uvicorn expects an answer within 5 s."""
    slow = Service(tmp_path, {}, "--workers", "2")
    try:
        wait_until(lambda: len(workers_of(slow)) == 2, within=BOOT_SECONDS, what="two workers")
        workers = workers_of(slow)
        with stopped(workers[0]), stopped(workers[1]):
            slow_until = time.monotonic() + 7
            wait_until(lambda: time.monotonic() > slow_until, within=30, what="longer than uvicorn waits")
        with slow:
            assert workers_of(slow) == workers
            assert "died" not in slow.log
    finally:
        slow.__exit__()


def test_both_workers_publish_the_same_key(service: Service) -> None:
    first, second = workers_of(service)
    assert jwks_of(service, first) == jwks_of(service, second)


def test_each_worker_s_tokens_verify_with_the_other_s_keys(service: Service) -> None:
    first, second = workers_of(service)
    for minting, publishing in ((first, second), (second, first)):
        with stopped(publishing):
            token = service.mint()["token"]
        with stopped(minting):
            assert verify_with_pyjwt(token, service.jwks())["sub"] == "agent://risk"


def test_every_answer_on_a_new_connection_fits_every_other(service: Service) -> None:
    jwks = service.jwks()
    for _ in range(50):
        assert service.jwks() == jwks
        verify_with_pyjwt(service.mint()["token"], jwks)


def test_a_killed_worker_is_missed_by_nobody_and_soon_back_with_the_same_key(mortal_service: Service) -> None:
    service = mortal_service
    killed, survivor = workers_of(service)
    jwks = jwks_of(service, killed)
    killed.kill()

    def replaced() -> bool:
        service.mint()  # by the survivor, all the while
        return len({worker.pid for worker in workers_of(service)} - {killed.pid, survivor.pid}) == 1

    wait_until(replaced, within=BACK_SECONDS, what="there is a new worker")
    [new] = [worker for worker in workers_of(service) if worker not in (killed, survivor)]
    assert jwks_of(service, new) == jwks
    assert survivor.is_running()


def test_workers_whose_parent_is_killed_end_and_free_the_port(mortal_service: Service) -> None:
    """Also while a client keeps its connection."""
    service = mortal_service
    processes = family(service)
    try:
        with connection(service.port) as sock:
            sock.sendall(mint_bytes())
            assert read_answer(sock).status == 200
            service.process.kill()
            service.process.wait()
            wait_until(lambda: all_gone(processes), within=ORPHANED_SECONDS, what="no process is left")
        assert refuses_connections(service.port)
        assert "Traceback" not in service.log
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)


def test_the_key_is_in_no_environment_command_line_or_file(
    start_service: Callable[..., Service], tmp_path: Path
) -> None:
    """A worker gets it through a pipe: it has its parent's environment, and a command line of two numbers."""
    require_view_of_services()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    service = start_service({"TMPDIR": str(temporary), "HOME": str(temporary)}, "--workers", "2")
    parent, *children = family(service)
    assert len(workers_of(service)) == 2
    for process in (parent, *children):
        environment = process.environ()
        assert environment == parent.environ()
        assert not re.search(r'BEGIN|PRIVATE|"d"', str(environment))
        assert {opened.path for opened in process.open_files()} <= {
            str(service.log_path),
            str(service.audit_path),
        }
    for worker in workers_of(service):
        command = " ".join(worker.cmdline())
        assert re.search(r"spawn_main\(tracker_fd=\d+, pipe_handle=\d+\) --multiprocessing-fork$", command)
        assert len(command) < 300
    assert list(temporary.iterdir()) == []
