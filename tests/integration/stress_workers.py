"""Many workers under fire: `stress_workers.py PORT WORKERS ITEMS KILLS`.

Forks WORKERS processes that work on job2, kills KILLS of them at random moments spread over the
work, and starts a new one for each. Each worker notes what it began (`began`, a set) and how
often completing an item counted (`counted`, a hash), with commands of its own: a worker killed
between completing and noting leaves an item that is done and has no note.
"""

import os
import random
import signal
import sys
import time

import redis

import rediswq


def work(port: int) -> None:
    """Work until everything is done."""
    notes = redis.Redis(port=port)
    queue = rediswq.RedisWQ("job2", port=port)
    while not queue.empty():
        while (item := queue.lease(lease_secs=1.5, timeout=0.5)) is not None:
            notes.sadd("began", item)
            if queue.complete(item):
                notes.hincrby("counted", item, 1)


def fork(port: int) -> int:
    """Start a worker; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work(port)
        code = 0
    finally:
        os._exit(code)


def main(port: int, workers: int, items: int, kills: int) -> None:
    """Run to the end; exit with 1 if a worker failed by itself."""
    watch = redis.Redis(port=port)
    pids = [fork(port) for _ in range(workers)]
    for kill in range(kills):
        while watch.hlen("counted") < kill * items * 0.9 / kills:
            time.sleep(0.005)
        victim = random.choice(pids)
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        pids[pids.index(victim)] = fork(port)
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1]]
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
