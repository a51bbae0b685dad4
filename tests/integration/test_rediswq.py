"""The queue's contract, on real servers with real processes.

Where a test needs a lease to have expired it moves the lease's expiry to the past, or uses a
lease of 0.3 s. Where it needs to know that a client waits it asks the server.
"""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

import rediswq
from tests.integration.redis_server import wait_until

FRUITS = [b"apple", b"banana", b"cherry", b"date", b"fig", b"grape", b"lemon", b"melon", b"orange"]
SHORT = 0.3  # s, a lease that is to be lost
KEPT = 1  # s, a lease that heartbeats must keep even on a machine with much else to do


@pytest.fixture
def make_queue(server):
    queues = []

    def make(**options):
        queues.append(rediswq.RedisWQ("job2", port=server.port, **options))
        return queues[-1]

    yield make
    for queue in queues:
        queue._held.clear()  # so that no heartbeat goes on into the next test


@pytest.fixture
def queue(make_queue):
    return make_queue()


def push(server, *items):
    server.client.rpush("job2", *items)


def lists(server):
    return [server.client.lrange(f"job2{key}", 0, -1) for key in ("", ":processing", ":failed")]


def heartbeats():
    return {thread for thread in threading.enumerate() if thread.name == "heartbeat"}


class TestOrder:
    def test_items_come_in_the_order_of_their_pushing(self, server, queue):
        push(server, *FRUITS)
        assert server.client.lrange("job2", 0, -1) == FRUITS
        assert [queue.lease() for _ in FRUITS] == FRUITS
        assert lists(server) == [[], FRUITS, []]
        held = server.client.hgetall(f"job2:leased_by_session:{queue.sessionID()}")
        assert list(held.values()) == FRUITS

    def test_reclaimed_items_go_to_the_head_in_their_old_order(self, server, queue, make_queue):
        items = [b"%d" % n for n in range(25)]
        push(server, *items, b"after")
        for n in range(25):
            (queue if n % 2 else make_queue()).lease()
        server.expire_leases()
        assert not queue.empty()
        assert lists(server) == [[*items, b"after"], [], []]

    def test_only_what_expired_is_reclaimed(self, server, queue, make_queue):
        push(server, b"expired", b"kept", b"waiting")
        queue.lease()
        server.expire_leases()
        other = make_queue()
        server.client.zadd("job2:leases", {"gone:7": 9e15})  # someone else's
        assert other.lease() == b"expired"
        assert queue.lease() == b"kept"
        assert lists(server) == [[b"waiting"], [b"expired", b"kept"], []]


class TestItems:
    @pytest.mark.parametrize(
        "item",
        [
            b"",
            b"\n",
            b"two\r\nlines",
            bytes(range(256)),
            b"\xff\xfe",
            "苹果".encode(),
            b"0",
            b"1:2",
        ],
        ids=repr,
    )
    def test_any_bytes(self, server, queue, item):
        push(server, item)
        assert queue.lease() == item
        assert queue.complete(item) is True
        assert queue.empty()

    def test_a_megabyte(self, server, queue):
        item = os.urandom(1 << 20)
        with ThreadPoolExecutor() as pool:  # also through the wait, which moves the item as well
            leased = pool.submit(queue.lease)
            server.wait_for_blocked(1)
            push(server, item)
            assert leased.result() == item
        server.expire_leases()
        assert not queue.empty()
        assert queue.lease() == item
        assert queue.complete(item) is False  # the first lease on it
        assert queue.complete(item) is True
        assert queue.empty()

    def test_bytes_even_if_the_caller_asks_for_str(self, server, make_queue):
        push(server, b"\xff")
        assert make_queue(decode_responses=True).lease() == b"\xff"

    def test_equal_items_are_separate_items(self, server, queue, make_queue):
        push(server, b"twin", b"twin", b"twin")
        other = make_queue()
        assert [queue.lease(), queue.lease(), other.lease()] == [b"twin"] * 3
        assert queue.lease(block=False) is None
        assert queue.complete(b"twin")
        assert not queue.empty()
        assert other.complete(b"twin")
        assert not other.complete(b"twin")
        assert not queue.empty()
        assert queue.complete(b"twin")
        assert not queue.complete(b"twin")
        assert queue.empty()

    def test_completing_what_was_never_leased(self, server, queue, make_queue):
        push(server, b"apple", b"banana")
        assert queue.complete(b"apple") is False
        assert queue.lease() == b"apple"
        assert make_queue().complete(b"apple") is False
        assert lists(server) == [[b"banana"], [b"apple"], []]

    def test_nothing_stays_behind_but_the_memory_of_the_last_completion(self, server, queue):
        push(server, *FRUITS)
        while not queue.empty():
            queue.complete(queue.lease())
        [left] = server.client.keys()
        assert left.decode() == f"job2:completed_by:{queue.sessionID()}"
        assert 0 < server.client.ttl(left) <= 86_400

    @pytest.mark.parametrize("secs", [0, -1])
    def test_a_lease_needs_time(self, queue, secs):
        with pytest.raises(ValueError, match="over before it starts"):
            queue.lease(lease_secs=secs)


class TestProcesses:
    def test_several_share_a_queue(self, server, start_worker):
        items = [b"%d" % n for n in range(400)]
        workers = [start_worker() for _ in range(4)]
        push(server, *items)
        for worker in workers:
            worker.start("drain", lease_secs=60)
        done = [each for worker in workers for each in worker.result()]
        assert sorted(done) == sorted((item, True) for item in items)

    def test_a_killed_workers_item_comes_back(self, server, start_worker, queue):
        push(server, b"apple")
        worker = start_worker()
        assert worker.call("lease", lease_secs=SHORT) == b"apple"
        worker.kill()
        assert not queue.empty()
        assert queue.lease(timeout=20) == b"apple"
        assert queue.complete(b"apple")
        assert queue.empty()

    def test_a_busy_worker_keeps_its_item(self, server, start_worker, queue):
        push(server, b"apple")
        worker = start_worker()
        assert worker.call("lease", lease_secs=KEPT) == b"apple"
        worker.start("spin", secs=3 * KEPT)
        assert queue.lease(timeout=2.5 * KEPT) is None
        worker.result()
        assert worker.call("complete", item=b"apple") is True

    def test_a_stalled_worker_is_fenced_off(self, server, start_worker, queue):
        push(server, b"apple")
        worker = start_worker()
        assert worker.call("lease", lease_secs=SHORT) == b"apple"
        worker.freeze()
        assert queue.lease(timeout=20) == b"apple"
        before = lists(server), server.client.zrange("job2:leases", 0, -1)
        worker.thaw()
        assert worker.call("complete", item=b"apple") is False
        assert (lists(server), server.client.zrange("job2:leases", 0, -1)) == before
        assert queue.complete(b"apple") is True
        assert worker.call("complete", item=b"apple") is False

    def test_an_expired_lease_that_nobody_reclaimed_is_good(self, server, start_worker):
        push(server, b"apple")
        worker = start_worker()
        assert worker.call("lease", lease_secs=60) == b"apple"
        server.expire_leases()
        assert worker.call("complete", item=b"apple") is True
        assert worker.call("empty")

    @pytest.mark.parametrize("hours", [-5, 5])
    def test_a_wrong_clock_does_no_harm(self, server, start_worker, queue, hours):
        push(server, b"apple", b"banana")
        assert queue.lease(lease_secs=60) == b"apple"
        worker = start_worker(skew_secs=3600 * hours)
        assert worker.call("lease", lease_secs=60) == b"banana"
        assert worker.call("lease", block=False) is None
        assert queue.lease(block=False) is None
        assert worker.call("complete", item=b"banana") is True
        assert queue.complete(b"apple") is True

    def test_a_forked_child_is_another_worker(self, server, queue):
        push(server, b"apple", b"banana")
        assert queue.lease(lease_secs=60) == b"apple"
        pid = os.fork()
        if pid == 0:  # each failure has its own code: an exception must not run on into pytest
            code = 1
            try:
                parents = queue._session
                if queue.complete(b"apple"):
                    code = 2
                elif queue.sessionID() == parents:
                    code = 3
                elif queue.lease(lease_secs=60) != b"banana":
                    code = 4
                elif [item for item, _ in queue._held.values()] != [b"banana"]:
                    code = 5
                else:
                    code = 0 if queue.complete(b"banana") else 6
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert queue.complete(b"apple") is True
        assert queue.empty()


class TestWaiting:
    def test_the_server_does_the_waiting(self, server, queue):
        queue.lease(block=False)  # the server knows the script
        server.client.config_resetstat()
        assert queue.lease(timeout=1) is None
        assert server.calls("blmove") in (1, 2)  # it may wake a millisecond early
        assert server.calls("evalsha") == 1 + server.calls("blmove")

    def test_without_blocking_nothing_waits(self, server, queue):
        assert queue.lease(block=False) is None
        assert queue.lease(timeout=0) is None
        assert server.calls("blmove") == 0

    def test_a_late_push_wakes_one_who_waits_for_ever(self, server, queue):
        with ThreadPoolExecutor() as pool:
            leased = pool.submit(queue.lease)
            server.wait_for_blocked(1)
            assert not leased.done()
            push(server, *FRUITS)
            assert leased.result() == FRUITS[0]
        assert lists(server) == [FRUITS[1:], FRUITS[:1], []]  # the wait changed no order
        assert server.calls("blmove") == 1

    def test_each_of_several_waiting_gets_one(self, server, make_queue):
        waiting = [make_queue() for _ in range(5)]
        with ThreadPoolExecutor() as pool:
            leased = [pool.submit(queue.lease) for queue in waiting]
            server.wait_for_blocked(5)
            push(server, *FRUITS[:3])
            push(server, *FRUITS[3:5])
            assert sorted(each.result() for each in leased) == FRUITS[:5]
        assert lists(server)[0] == []

    def test_one_who_waits_reclaims_without_any_push(self, server, start_worker, make_queue):
        queue = make_queue(socket_timeout=60)  # so that it's not for this that it looks again
        push(server, b"apple")
        worker = start_worker()
        worker.call("lease", lease_secs=1)
        worker.kill()
        with ThreadPoolExecutor() as pool:
            leased = pool.submit(queue.lease, timeout=25)
            server.wait_for_blocked(1)
            assert leased.result(timeout=10) == b"apple"

    def test_a_wait_beyond_the_sockets_timeout(self, server, make_queue):
        queue = make_queue(socket_timeout=0.2, retry_secs=0)
        assert queue.lease(timeout=0.5) is None
        assert server.calls("blmove") >= 2
        assert server.client.info("stats")["total_connections_received"] < 10  # none was given up


class TestHeartbeat:
    def test_one_thread_that_ends_with_the_last_item(self, server, queue):
        push(server, *FRUITS)
        others = heartbeats()  # of earlier tests
        assert [queue.lease(lease_secs=60) for _ in FRUITS] == FRUITS
        assert len(heartbeats() - others) == 1
        for item in FRUITS:
            queue.complete(item)
        wait_until(lambda: not heartbeats() - others, "the heartbeat's end", secs=5)
        push(server, b"again")
        queue.lease()
        assert len(heartbeats() - others) == 1

    def test_one_call_renews_all(self, server, queue):
        push(server, *FRUITS)
        for _ in FRUITS:
            queue.lease(lease_secs=KEPT)
        server.client.config_resetstat()
        wait_until(lambda: server.calls("eval") >= 3, "three beats")
        stats = server.client.info("commandstats")
        assert stats["cmdstat_zadd"]["calls"] == len(FRUITS) * stats["cmdstat_eval"]["calls"]
        assert server.client.zcount("job2:leases", "-inf", time.time() * 1000) == 0

    def test_a_short_lease_is_renewed_while_the_thread_waits_for_a_long_one(self, server, queue):
        push(server, b"long", b"short")
        queue.lease(lease_secs=600)
        queue.lease(lease_secs=KEPT)
        assert rediswq.RedisWQ("job2", port=server.port).lease(timeout=2.5 * KEPT) is None
        assert queue.complete(b"short") is True

    def test_it_ends_when_the_lease_is_gone(self, server, queue, make_queue):
        push(server, b"apple")
        queue.lease(lease_secs=1.5)
        server.expire_leases()
        other = make_queue()
        assert other.lease(block=False, lease_secs=600) == b"apple"
        wait_until(lambda: not queue._held, "the news of the loss")
        assert queue.complete(b"apple") is False
        assert other.complete(b"apple") is True


class TestThreads:
    def test_several_share_a_queue_object(self, server, queue):
        items = [b"%d" % n for n in range(400)]
        push(server, *items)

        def work(_):
            done = []
            while (item := queue.lease(block=False)) is not None:
                done.append((item, queue.complete(item)))
            return done

        with ThreadPoolExecutor(8) as pool:
            done = [each for part in pool.map(work, range(8)) for each in part]
        assert sorted(done) == sorted((item, True) for item in items)

    def test_one_who_waits_does_not_hinder_the_others(self, server, queue):
        with ThreadPoolExecutor() as pool:
            leased = pool.submit(queue.lease)
            server.wait_for_blocked(1)
            assert queue.empty()
            assert queue.lease(block=False) is None
            push(server, b"apple")
            assert leased.result() == b"apple"


class TestPoison:
    def test_an_item_whose_workers_die_is_put_aside(self, server, make_queue):
        push(server, b"poison", b"good")
        queue = make_queue(max_deliveries=3)
        for loss in (1, 2, 3):
            assert queue.lease() == b"poison"
            assert server.client.hget("job2:lost_leases", b"poison") in (None, b"%d" % (loss - 1))
            server.expire_leases()
        assert queue.lease() == b"good"
        assert lists(server) == [[], [b"good"], [b"poison"]]
        assert server.client.hgetall("job2:lost_leases") == {b"poison": b"3"}
        assert queue.complete(b"good")
        assert queue.empty()

    def test_completing_forgives(self, server, make_queue):
        queue = make_queue(max_deliveries=2)
        for _ in range(3):
            push(server, b"apple")
            queue.lease()
            server.expire_leases()
            assert queue.lease() == b"apple"
            assert queue.complete(b"apple") is False
            assert queue.complete(b"apple") is True
        assert lists(server) == [[], [], []]

    def test_without_a_limit_never(self, server, queue):
        push(server, b"poison")
        for _ in range(20):
            assert queue.lease() == b"poison"
            server.expire_leases()


class TestCost:
    def test_two_commands_per_item(self, server, queue):
        push(server, *FRUITS * 10)
        queue.complete(queue.lease())
        server.client.config_resetstat()
        with server.client.monitor() as monitor:
            for _ in FRUITS * 9:
                queue.complete(queue.lease(lease_secs=600))
            server.client.echo("end")
            seen = []
            for command in monitor.listen():
                name = command["command"].split()[0]
                if command["client_type"] != "lua" and name not in ("HELLO", "CLIENT"):
                    seen.append(name)
                if seen and seen[-1] == "ECHO":
                    break
        assert seen == ["EVALSHA"] * 2 * len(FRUITS * 9) + ["ECHO"]


def test_a_wrong_type_is_not_retried(server, queue):
    server.client.set("job2", "not a list")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        queue.lease()
