"""Lost replies, servers that are away or forget their scripts, and workers killed in between."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

import rediswq
from tests.integration.redis_server import Server, find_servers, wait_until
from tests.integration.worker_process import WorkerProcess

COMMANDS = 20  # at least what lease_and_complete sends, connecting included


def lease_and_complete(port):
    """Do all there is; return the items and what completing them said."""
    queue = rediswq.RedisWQ("job2", port=port, retry_secs=10)
    done = []
    while not queue.empty():
        item = queue.lease(lease_secs=60, timeout=0.2)
        if item is not None:
            done.append((item, queue.complete(item)))
    return done


class TestLostReplies:
    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("n", range(1, COMMANDS + 1))
    def test_at_every_command(self, server, start_proxy, n, when):
        server.client.rpush("job2", "a", "b", "a")
        proxy = start_proxy(n, when)
        assert lease_and_complete(proxy.port) == [(b"a", True), (b"b", True), (b"a", True)]
        assert server.client.lrange("job2:processing", 0, -1) == []
        assert server.client.zcard("job2:leases") == 0
        assert server.client.exists("job2:lost_leases") == 0  # no retry waited for an expiry
        assert proxy.cut.is_set() == (n <= len(proxy.commands))

    def test_that_is_all_the_commands(self, server, start_proxy):
        server.client.script_flush()
        server.client.rpush("job2", "a", "b", "a")
        proxy = start_proxy()
        lease_and_complete(proxy.port)
        assert len(proxy.commands) <= COMMANDS
        assert {b"HELLO", b"EVALSHA", b"EVAL"} <= set(proxy.commands)

    def test_while_waiting(self, server, start_proxy):
        proxy = start_proxy(1, "after", only={b"BLMOVE"})
        queue = rediswq.RedisWQ("job2", port=proxy.port)
        assert queue.lease(timeout=0.3) is None
        assert proxy.cut.is_set()

    def test_a_completion_is_not_counted_twice_nor_for_another(self, server, start_proxy):
        """The reply is lost and the item, pushed again, is held by another: theirs must stay."""
        server.client.rpush("job2", "a")
        queue = rediswq.RedisWQ("job2", port=start_proxy(2, only={b"EVALSHA"}).port)
        other = rediswq.RedisWQ("job2", port=server.port)
        server.client.rpush("job2", "a")
        for warm_up in (1, 2):  # the server knows the scripts
            assert other.complete(other.lease()), warm_up
        server.client.rpush("job2", "a", "a")
        assert queue.lease() == b"a"
        assert other.lease() == b"a"
        assert queue.complete(b"a") is True
        assert server.client.lrange("job2:processing", 0, -1) == [b"a"]
        assert other.complete(b"a") is True

    def test_another_thread_may_complete_in_between(self, server, start_proxy):
        server.client.rpush("job2", "a", "b")
        server.client.script_flush()
        server.client.script_load(rediswq._LEASE)
        proxy = start_proxy(1, only={b"EVAL"})  # the first complete(): its script is new
        queue = rediswq.RedisWQ("job2", port=proxy.port)
        assert [queue.lease(), queue.lease()] == [b"a", b"b"]
        with ThreadPoolExecutor() as pool:
            completed = pool.submit(queue.complete, b"a")
            assert proxy.cut.wait(20)
            assert queue.complete(b"b") is True
            assert completed.result() is True
        assert queue.empty()

    def test_a_delayed_copy_of_a_lease_request_can_not_take_an_item_for_good(self, server):
        """The copy takes a second item as lease n, after n was completed."""
        server.client.rpush("job2", "a", "b")
        queue = rediswq.RedisWQ("job2", port=server.port)
        assert queue.lease() == b"a"
        assert queue.complete(b"a") is True
        copy = [queue.sessionID(), 1, "inf", 60_000]
        assert server.client.eval(rediswq._LEASE, 1, "job2", *copy) == b"b"
        assert queue._call(rediswq._COMPLETE, queue.sessionID(), 1)  # its delayed retry
        assert server.client.lrange("job2:processing", 0, -1) == [b"b"]
        server.expire_leases()
        assert queue.lease() == b"b"


def test_scripts_that_the_server_forgot(server):
    queue = rediswq.RedisWQ("job2", port=server.port)
    server.client.rpush("job2", "a")
    for call in (queue.empty, queue.lease, lambda: queue.complete(b"a"), queue.empty):
        server.client.script_flush()
        result = call()
    assert result is True


class TestServerAway:
    def test_the_error_says_where_and_for_how_long(self, own_server):
        own_server.kill()
        for call in ("lease", "empty"):
            queue = rediswq.RedisWQ("job2", host="localhost", port=own_server.port, retry_secs=0.3)
            began = time.monotonic()
            with pytest.raises(rediswq.RedisUnreachable) as caught:
                getattr(queue, call)()
            assert time.monotonic() - began >= 0.3
            assert f"localhost:{own_server.port} for 0." in str(caught.value)
            assert isinstance(caught.value, redis.ConnectionError)
        own_server.start()

    def test_a_unix_socket_is_named_by_its_path(self, tmp_path):
        path = str(tmp_path / "none.sock")
        queue = rediswq.RedisWQ("job2", unix_socket_path=path, retry_secs=0)
        with pytest.raises(rediswq.RedisUnreachable, match=path):
            queue.lease()

    def test_a_crash_and_restart_with_items_held(self, own_server):
        own_server.client.rpush("job2", "a", "b", "c")
        worker = WorkerProcess(own_server.port)
        assert worker.call("lease", lease_secs=60) == b"a"
        own_server.kill()
        worker.start("complete", item=b"a")
        own_server.start()
        assert worker.result() is True
        assert worker.call("drain", lease_secs=60) == [(b"b", True), (b"c", True)]
        worker.kill()

    def test_one_who_waits_outlives_a_restart(self, own_server):
        worker = WorkerProcess(own_server.port)
        worker.start("lease")
        own_server.wait_for_blocked(1)
        own_server.kill()
        own_server.start()
        own_server.client.rpush("job2", "a")
        assert worker.result() == b"a"
        worker.kill()

    def test_the_heartbeat_outlives_a_lost_connection(self, server, start_proxy):
        server.client.rpush("job2", "a")
        server.client.script_load(rediswq._LEASE)
        proxy = start_proxy(1, "before", only={b"EVAL"})  # the first beat
        queue = rediswq.RedisWQ("job2", port=proxy.port)
        assert queue.lease(lease_secs=1) == b"a"
        assert proxy.cut.wait(20)
        server.client.config_resetstat()
        wait_until(lambda: server.calls("eval") >= 2, "two more beats")
        assert queue.complete(b"a") is True

    def test_the_heartbeat_outlives_a_restart(self, own_server):
        own_server.client.rpush("job2", "a")
        worker = WorkerProcess(own_server.port)
        assert worker.call("lease", lease_secs=3) == b"a"
        own_server.kill()
        own_server.start()
        own_server.client.config_resetstat()
        wait_until(lambda: own_server.calls("eval") >= 2, "two beats")
        assert rediswq.RedisWQ("job2", port=own_server.port).lease(timeout=2) is None
        assert worker.call("complete", item=b"a") is True
        worker.kill()


class TestKilledRightAfterTaking:
    """The moment that tells a good queue from a bad one: the item is taken, the reply is not in."""

    def take_and_die(self, server, start_worker, start_proxy, module):
        server.client.rpush("job2", "apple", "banana")
        other = start_worker(module=module)  # and the server knows the scripts
        assert other.call("lease", lease_secs=60) == b"apple"
        assert other.call("complete", item=b"apple") is True
        proxy = start_proxy(1, hold=True, only={b"EVALSHA", b"LMOVE"})
        worker = start_worker(proxy.port, module=module)
        worker.start("lease", lease_secs=0.3, block=False)
        assert proxy.cut.wait(20)
        worker.kill()
        return other

    def test_ours_comes_back(self, server, start_worker, start_proxy):
        other = self.take_and_die(server, start_worker, start_proxy, "rediswq")
        assert other.call("drain", lease_secs=60) == [(b"banana", True)]
        assert other.call("empty")

    def test_a_naive_one_is_lost(self, server, start_worker, start_proxy):
        other = self.take_and_die(server, start_worker, start_proxy, "tests.faults.naive_rediswq")
        assert other.call("lease", timeout=1) is None
        assert not other.call("empty")
        assert server.client.lrange("job2:processing", 0, -1) == [b"banana"]
        assert not server.client.keys("job2:lease*")


def test_a_missing_server_fails_with_a_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="apt-get install redis-server"):
        Server("no-such-redis-server", tmp_path)
    assert find_servers()
