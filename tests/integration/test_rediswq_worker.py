"""worker.py itself, as a process, against a real server."""

import os
import re
import subprocess
import sys

from tests.integration.worker_process import ROOT

SESSION = r"Worker with sessionID: [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
FRUITS = ["apple", "banana", "cherry", "date", "fig", "grape", "lemon", "melon", "orange"]

# Runs the file as it is. The name "redis" leads to the test's server, as a cluster's DNS would
# lead to its own. The ten seconds of pretended work become WORK_SECS.
RUN = """
import os, runpy, socket, time
lookup, sleep = socket.getaddrinfo, time.sleep
def getaddrinfo(host, port, *args, **kwargs):
    assert (host, port) == ("redis", 6379)
    return lookup("127.0.0.1", int(os.environ["TEST_PORT"]), *args, **kwargs)
socket.getaddrinfo = getaddrinfo
time.sleep = lambda secs: sleep(float(os.environ["WORK_SECS"]) if secs == 10 else secs)
runpy.run_path(os.environ["WORKER"], run_name="__main__")
"""


def start(server, work_secs):
    env = os.environ | {
        "PYTHONPATH": str(ROOT / "worker"),
        "WORKER": str(ROOT / "worker" / "worker.py"),
        "TEST_PORT": str(server.port),
        "WORK_SECS": str(work_secs),
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True, env=env)


def lines_of(process):
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.splitlines()


def test_an_empty_queue(own_server):
    session, *rest = lines_of(start(own_server, 0))
    assert re.fullmatch(SESSION, session)
    assert rest == ["Initial queue state: empty=True", "Queue empty, exiting"]


def test_one_worker_does_all_in_order(own_server):
    own_server.client.rpush("job2", *FRUITS)
    session, *rest = lines_of(start(own_server, 0.01))
    assert re.fullmatch(SESSION, session)
    assert rest == [
        "Initial queue state: empty=False",
        *[f"Working on {fruit}" for fruit in FRUITS],
        "Queue empty, exiting",
    ]


def test_two_share_and_the_second_waits_for_the_first(own_server):
    """With the document's own ten seconds, as long as its lease."""
    own_server.client.rpush("job2", "apple")
    first = start(own_server, 10)
    assert [first.stdout.readline() for _ in range(3)][2] == "Working on apple\n"
    second = lines_of(start(own_server, 10))
    assert second[1] == "Initial queue state: empty=False"
    assert second[2:-1] == ["Waiting for work"] * len(second[2:-1])
    assert 4 <= len(second[2:-1]) <= 6
    assert second[-1] == "Queue empty, exiting"
    assert lines_of(first) == ["Queue empty, exiting"]


def test_a_killed_worker_repeats_nothing_but_its_last_item(own_server):
    own_server.client.rpush("job2", "apple", "banana", "cherry")
    first = start(own_server, 60)
    for _ in range(3):
        line = first.stdout.readline()
    assert line == "Working on apple\n"
    first.kill()
    first.communicate()
    own_server.expire_leases()
    work = lines_of(start(own_server, 0.01))[2:-1]
    assert work == ["Working on apple", "Working on banana", "Working on cherry"]
