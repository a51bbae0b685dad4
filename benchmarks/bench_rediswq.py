"""What the queue costs: leasing and completing an item, next to two bare Redis commands.

    PYTHONPATH=.:worker python benchmarks/bench_rediswq.py

Rounds of the two alternate, so that other load on the machine meets both.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import redis

import rediswq
from tests.integration.redis_server import Server, find_servers

ITEMS, ROUNDS = 2000, 9


def queue_round(client: redis.Redis, queue: rediswq.RedisWQ) -> None:
    """Lease and complete every item."""
    for _ in range(ITEMS):
        assert queue.complete(queue.lease(block=False))


def bare_round(client: redis.Redis, queue: rediswq.RedisWQ) -> None:
    """Set and get as many times."""
    for n in range(ITEMS):
        client.set("bare", n)
        client.get("bare")


def measure(binary: str, folder: Path) -> None:
    """Print one server's row."""
    socket_path = str(folder / "redis.sock")
    server = Server(binary, folder, "--unixsocket", socket_path)
    client = redis.Redis(unix_socket_path=socket_path)
    queue = rediswq.RedisWQ("job2", unix_socket_path=socket_path)
    rounds: list[tuple[Callable[..., None], redis.Redis]] = [
        (bare_round, client),
        (bare_round, client.client()),
        (queue_round, client),
    ]
    seconds: list[list[float]] = [[] for _ in rounds]
    for _ in range(ROUNDS):
        client.rpush("job2", *range(ITEMS))
        for (run, connection), times in zip(rounds, seconds, strict=True):
            began = time.perf_counter()
            run(connection, queue)
            times.append(time.perf_counter() - began)
    info = client.info("server")
    name = info.get("server_name", "redis")
    version = info.get(f"{name}_version") or info["redis_version"]
    bare, direct, ours = (ITEMS / statistics.median(times) for times in seconds)
    print(
        f"{name + ' ' + version:<16}{bare:>12.0f}{direct:>12.0f}{ours:>12.0f}"
        f"{ours / bare:>10.2f}{ours / direct:>10.2f}"
    )
    server.kill()


def main() -> None:
    """Print a table of items per second, by the median round.

    pooled: set and get through a plain client. direct: the same over a connection kept for it,
    as the queue does. queue: lease and complete; and its ratio to either.
    """
    print(f"{'server':<16}{'pooled':>12}{'direct':>12}{'queue':>12}{'/pooled':>10}{'/direct':>10}")
    for binary in find_servers():
        with tempfile.TemporaryDirectory() as folder:
            measure(binary, Path(folder))


if __name__ == "__main__":
    main()
