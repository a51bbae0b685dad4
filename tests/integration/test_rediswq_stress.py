"""Many processes, many kills: nothing is lost, and nothing counts twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.worker_process import ROOT

WORKERS, ITEMS, KILLS = 50, 20_000, 200


@pytest.mark.stress
def test_many_processes_and_kills(own_server):
    client = own_server.client
    client.rpush("job2", *range(ITEMS))
    script = Path(__file__).with_name("stress_workers.py")
    subprocess.run(
        [sys.executable, script, *map(str, (own_server.port, WORKERS, ITEMS, KILLS))],
        env=os.environ | {"PYTHONPATH": str(ROOT / "worker")},
        check=True,
        timeout=300,
    )
    counted = {item: int(times) for item, times in client.hgetall("counted").items()}
    assert client.scard("began") == ITEMS
    assert set(counted.values()) == {1}
    assert ITEMS - KILLS <= len(counted) <= ITEMS
    losses = sum(map(int, client.hvals("job2:lost_leases")))
    print(f"{ITEMS - len(counted)} completions not noted, {losses} losses not forgiven")
    assert client.exists("job2", "job2:processing", "job2:leases", "job2:failed") == 0
    assert not client.keys("job2:leased_by_session:*")
