"""Random histories of several workers, compared with a plain model after every step.

Workers lease, complete, die and stall past their lease. Time moves by setting the expiry of
leases to the past, so that no step waits.
"""

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import rediswq

WORKERS = range(3)
ITEMS = st.sampled_from([b"a", b"b", b"c", b"", b"a\n"])
MAX_DELIVERIES = 3


def machine(server):
    """Return the state machine for this server."""

    class Histories(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            server.client.flushall()
            self.waiting, self.processing, self.failed = [], [], []
            self.leases = []  # those in Redis, in the order of leasing
            self.pushed, self.completed, self.losses = Counter(), Counter(), Counter()
            self.queues = [self.new_queue() for _ in WORKERS]
            self.held = [[] for _ in WORKERS]  # as far as the worker knows, in order

        def new_queue(self):
            return rediswq.RedisWQ("job2", port=server.port, max_deliveries=MAX_DELIVERIES)

        def teardown(self):
            for queue in self.queues:
                queue._held.clear()

        def reclaim(self):
            expired = [lease for lease in self.leases if lease.expired]
            places = sorted((self.processing.index(e.item) for e in expired), reverse=True)
            items = [self.processing[place] for place in places]
            for lease in expired:
                self.leases.remove(lease)
            for item in items:
                self.processing.remove(item)
                self.losses[item] += 1
                if self.losses[item] < MAX_DELIVERIES:
                    self.waiting.insert(0, item)
                else:
                    self.failed.append(item)

        @rule(item=ITEMS)
        def push(self, item):
            server.client.rpush("job2", item)
            self.waiting.append(item)
            self.pushed[item] += 1

        @rule(worker=st.sampled_from(WORKERS))
        def lease(self, worker):
            self.reclaim()
            expected = self.waiting.pop(0) if self.waiting else None
            assert self.queues[worker].lease(lease_secs=3600, block=False) == expected
            if expected is not None:
                lease = SimpleNamespace(item=expected, expired=False)
                self.processing.append(expected)
                self.leases.append(lease)
                self.held[worker].append(lease)

        @rule(worker=st.sampled_from(WORKERS), item=ITEMS)
        def complete(self, worker, item):
            lease = next((each for each in self.held[worker] if each.item == item), None)
            # by identity: two leases on equal items are two leases
            counts = any(each is lease for each in self.leases)
            assert self.queues[worker].complete(item) is counts
            if lease:
                self.held[worker] = [each for each in self.held[worker] if each is not lease]
            if counts:
                self.leases = [each for each in self.leases if each is not lease]
                self.processing.remove(item)
                self.completed[item] += 1
                self.losses[item] = 0

        @precondition(lambda self: any(self.held))
        @rule(worker=st.sampled_from(WORKERS))
        def stall(self, worker):
            session = self.queues[worker].sessionID().encode()
            for name in server.client.zrange("job2:leases", 0, -1):
                if name.startswith(session):
                    server.client.zadd("job2:leases", {name: 1}, xx=True)
            for lease in self.held[worker]:
                lease.expired = True

        @rule(worker=st.sampled_from(WORKERS))
        def die(self, worker):
            self.queues[worker]._held.clear()  # no heartbeat any more
            self.queues[worker], self.held[worker] = self.new_queue(), []

        @rule()
        def everything_that_the_dead_held_expires(self):
            held = [lease for worker in self.held for lease in worker]
            known = {id(lease) for lease in held}
            living = {queue.sessionID().encode() for queue in self.queues}
            for name in server.client.zrange("job2:leases", 0, -1):
                if name.rpartition(b":")[0] not in living:
                    server.client.zadd("job2:leases", {name: 1}, xx=True)
            for lease in self.leases:
                lease.expired = lease.expired or id(lease) not in known

        @rule(worker=st.sampled_from(WORKERS))
        def empty(self, worker):
            self.reclaim()
            assert self.queues[worker].empty() is (not self.waiting and not self.leases)

        @invariant()
        def the_server_agrees(self):
            read = [server.client.lrange(f"job2{k}", 0, -1) for k in ("", ":processing", ":failed")]
            assert read[0] == self.waiting
            assert read[1] == self.processing
            assert Counter(read[2]) == Counter(self.failed)
            assert server.client.zcard("job2:leases") == len(self.leases)

        @invariant()
        def nothing_is_lost_or_done_twice(self):
            there = Counter(self.waiting) + Counter(self.processing) + Counter(self.failed)
            assert there + self.completed == self.pushed
            hashes = server.client.keys("job2:leased_by_session:*")
            assert sum(map(server.client.hlen, hashes)) == len(self.processing)

    return Histories


SETTINGS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_any_history(server):
    run_state_machine_as_test(machine(server), settings=SETTINGS)


def test_the_model_notices_a_broken_queue(server, monkeypatch):
    """Without fencing a stalled worker's completion counts: a history must show that."""
    broken = rediswq._COMPLETE.replace("if not item then return", "if false then return")
    broken = broken.replace("call('HGET', held, n)", "call('LINDEX', processing, 0) or ''")
    monkeypatch.setitem(rediswq._SHA, broken, server.client.script_load(broken))
    monkeypatch.setattr(rediswq, "_COMPLETE", broken)
    with pytest.raises(AssertionError):  # the first is enough: looking for the shortest takes long
        run_state_machine_as_test(
            machine(server), settings=settings(SETTINGS, phases=[Phase.generate])
        )
