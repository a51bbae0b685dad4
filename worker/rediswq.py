"""A work queue in Redis: leases, heartbeats, and items that come back from dead workers.

::

    q = RedisWQ(name="job2", host="redis")
    while not q.empty():
        item = q.lease(lease_secs=10, timeout=2)
        if item is not None:
            work(item)
            q.complete(item)

The contract:

- Delivery is at least once; the completion of an item takes effect once. An item is always
  in the queue, held under a lease, or failed: every step is one script on the server.
- A lease is a visibility timeout. A heartbeat renews it for as long as the process lives,
  however long the work takes. When the process is dead or stalled the lease expires, and
  whoever calls `lease` or `empty` next puts the item back at the head of the queue.
- The lease id is a fencing token: `complete` under a lease that was reclaimed changes
  nothing and returns False. An expired lease that nobody has reclaimed is still good.
- Items are plain bytes, leased in the order of their pushing. Equal items are separate items.
- The only clock is the server's. Each call may be repeated after a lost reply.
- It all is as durable as the one Redis that holds it (6.2 or newer, or Valkey; no cluster).

The keys, for a queue called NAME:

========================  =============  =======================================================
NAME                      list           items that wait; ``rpush NAME item`` adds one
NAME:processing           list           items that are held, in the order of leasing
NAME:leases               sorted set     lease id ``<session>:<n>``, by expiry in ms since 1970
NAME:leased_by_session:S  hash           n -> item, what session S holds
NAME:completed_by:S       string         n of the last lease that session S completed
NAME:lost_leases          hash           item -> how many leases on it have expired
NAME:failed               list           items given up on, see `max_deliveries`
========================  =============  =======================================================
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

_PRELUDE = """
local queue, session = KEYS[1], ARGV[1]
local processing, leases, lost = queue..':processing', queue..':leases', queue..':lost_leases'
local hash_of = queue..':leased_by_session:'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function reclaim(max_deliveries)
  local expired = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now)) do
    local holder, n = id:match('^(.*):(%d+)$')
    local item = redis.call('HGET', hash_of..holder, n)
    redis.call('ZREM', leases, id)
    redis.call('HDEL', hash_of..holder, n)
    if item then
      table.insert(expired, {item = item, at = redis.call('LPOS', processing, item) or 0})
    end
  end
  -- the item leased last is pushed first, so that the one leased first ends up at the head
  table.sort(expired, function(a, b) return a.at > b.at end)
  for _, it in ipairs(expired) do
    redis.call('LREM', processing, 1, it.item)
    local losses = redis.call('HINCRBY', lost, it.item, 1)
    if losses < tonumber(max_deliveries) then
      redis.call('LPUSH', queue, it.item)
    else
      redis.call('RPUSH', queue..':failed', it.item)
    end
  end
end
"""


class _Script:
    """A Lua script over the queue's keys; ``KEYS[1]`` is NAME, ``ARGV[1]`` the session."""

    def __init__(self, body: str) -> None:
        self.source = _PRELUDE + body
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


# -> the item; or how many ms until a lease may be reclaimed; or nil: nothing waits or is held
_LEASE = _Script("""
local n, lease_ms, max_deliveries = ARGV[2], ARGV[3], ARGV[4]
reclaim(max_deliveries)
local item = redis.call('HGET', hash_of..session, n)  -- there, if an earlier reply was lost
if not item then
  item = redis.call('LMOVE', queue, processing, 'LEFT', 'RIGHT')
  if not item then
    local oldest = redis.call('ZRANGE', leases, 0, 0, 'WITHSCORES')[2]
    return oldest and oldest - now
  end
  redis.call('HSET', hash_of..session, n, item)
end
redis.call('ZADD', leases, now + lease_ms, session..':'..n)
return item
""")

# -> 1: counted; 0: the lease is gone
_COMPLETE = _Script("""
local n, remember_secs = ARGV[2], ARGV[3]
local completed = queue..':completed_by:'..session
if redis.call('GET', completed) == n then return 1 end  -- counted, but the reply was lost
local item = redis.call('HGET', hash_of..session, n)
if not item then return 0 end
redis.call('ZREM', leases, session..':'..n)
redis.call('HDEL', hash_of..session, n)
redis.call('LREM', processing, 1, item)
redis.call('HDEL', lost, item)
redis.call('SET', completed, n, 'EX', remember_secs)
return 1
""")

# n, ms, n, ms... -> every n whose lease is gone
_RENEW = _Script("""
local gone = {}
for i = 2, #ARGV, 2 do
  local id = session..':'..ARGV[i]
  if redis.call('ZSCORE', leases, id) then
    redis.call('ZADD', leases, now + ARGV[i + 1], id)
  else
    table.insert(gone, tonumber(ARGV[i]))
  end
end
return gone
""")

_EMPTY = _Script("reclaim(ARGV[2]) return redis.call('EXISTS', queue, leases) == 0")


class RedisUnreachable(redis.ConnectionError):
    """Redis stayed away for longer than the caller was ready to wait."""


@dataclass(slots=True)
class _Lease:
    n: int
    secs: float
    renew_at: float  # time.monotonic()
    lost: bool = False


class RedisWQ:
    """One worker's access to the queue ``name``; any number of its threads may share it."""

    def __init__(
        self,
        name: str,
        *,
        max_deliveries: int | None = None,
        retry_secs: float = 60,
        **redis_kwargs: Any,
    ) -> None:
        """Connect at the first call.

        Args:
            name: the queue's key in Redis.
            max_deliveries: move an item to NAME:failed when this many leases on it expired;
                None gives it out for ever.
            retry_secs: for how long a call goes on while Redis is away, in seconds.
            redis_kwargs: as for `redis.Redis`: host, port, password...

        Raises:
            ValueError: decode_responses is on, but items are bytes.
        """
        # redis-py would retry unseen; here a call is told its time and the error names it
        redis_kwargs.setdefault("retry", Retry(NoBackoff(), 0))
        self._redis = redis.Redis(**redis_kwargs)
        if self._redis.get_encoder().decode_responses:
            raise ValueError("items are bytes: leave decode_responses off")
        self._execute: Any = self._redis.execute_command  # has no type hints
        self._name = name
        self._max_deliveries = math.inf if max_deliveries is None else max_deliveries
        self._retry_secs = retry_secs
        self._begin_session()

    def _begin_session(self) -> None:
        self._pid = os.getpid()
        self._session = str(uuid.uuid4())
        self._numbers = itertools.count(1)
        self._held: dict[bytes, list[_Lease]] = {}
        self._changed = threading.Condition()
        self._completing = threading.Lock()
        self._heart: threading.Thread | None = None
        self._next_beat = math.inf

    def _check_fork(self) -> None:
        """A forked child is another worker: it holds nothing of what its parent holds."""
        if self._pid != os.getpid():
            self._begin_session()

    def sessionID(self) -> str:
        """Return the id that tells this worker's leases from others'."""
        self._check_fork()
        return self._session

    def empty(self) -> bool:
        """Tell whether nothing waits and nobody holds anything: the work is done.

        Raises:
            RedisUnreachable: Redis stayed away for retry_secs.
        """
        return bool(self._call(_EMPTY, self.sessionID(), self._max_deliveries))

    def lease(
        self, lease_secs: float = 60, block: bool = True, timeout: float | None = None
    ) -> bytes | None:
        """Take the next item, to be handed back with `complete`.

        Args:
            lease_secs: after this many seconds without a heartbeat the item is another's.
            block: wait for an item if there is none.
            timeout: wait at most this many seconds; None waits for ever.

        Returns:
            The item, or None if none came in time.

        Raises:
            RedisUnreachable: Redis stayed away for retry_secs.
        """
        self._check_fork()
        lease_ms = math.ceil(lease_secs * 1000)
        if lease_ms < 1:
            raise ValueError(f"lease_secs must be positive, not {lease_secs}")
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        n = next(self._numbers)
        while True:
            found = self._call(_LEASE, self._session, n, lease_ms, self._max_deliveries)
            if isinstance(found, bytes):
                self._hold(found, _Lease(n, lease_secs, time.monotonic() + lease_secs / 3))
                return found
            left = deadline - time.monotonic()
            if not block or left <= 0:
                return None
            self._wait_for_item(left if found is None else min(left, found / 1000))

    def complete(self, item: bytes) -> bool:
        """Hand back an item that `lease` gave, as done.

        Returns:
            Whether this counted. False: the lease had been lost to another worker, who will
            do the item again, or the item was never leased here.

        Raises:
            RedisUnreachable: Redis stayed away for retry_secs; it may or may not have counted.
        """
        self._check_fork()
        # one at a time, so that remembering the last one is enough to know a repeated call
        with self._completing:
            with self._changed:
                lease = next(iter(self._held.get(item, ())), None)
            if lease is None:
                return False
            remember_secs = math.ceil(min(2 * self._retry_secs + 60, 86_400))
            counted = not lease.lost and self._call(
                _COMPLETE, self._session, lease.n, remember_secs
            )
            with self._changed:
                self._held[item].remove(lease)
                if not self._held[item]:
                    del self._held[item]
            return bool(counted)

    def _wait_for_item(self, secs: float) -> None:
        """Block on the server until an item waits, or for ``secs`` at most.

        The queue's last item is moved onto itself, which changes nothing: unlike a blocking pop
        there is no moment at which the item is in no list. The wait stays below the socket's
        timeout, so that silence is not taken for a dead server; it's at least a
        millisecond, as 0 would mean for ever.
        """
        socket_timeout = self._redis.connection_pool.connection_kwargs.get("socket_timeout", 5)
        secs = max(0.001, min(secs, (socket_timeout or 120) / 2))
        with suppress(redis.ConnectionError, redis.TimeoutError):  # the next script will retry
            self._execute("BLMOVE", self._name, self._name, "RIGHT", "RIGHT", f"{secs:.3f}")

    def _call(self, script: _Script, *args: str | float) -> Any:
        """Run ``script``, again and again while Redis is away; all scripts may be repeated."""
        backoff = ExponentialWithJitterBackoff(cap=2, base=0.05)
        began = time.monotonic()
        tries = 0
        while True:
            tries += 1
            try:
                return self._evaluate(script, *args)
            except redis.AuthenticationError:
                raise  # waiting won't mend it
            except (redis.ConnectionError, redis.TimeoutError) as error:
                tried = time.monotonic() - began
                if tried >= self._retry_secs:
                    raise RedisUnreachable(
                        f"Redis at {self._address()} did not answer for {tried:.1f} s"
                        f" ({tries} tries): {error}"
                    ) from error
            time.sleep(min(backoff.compute(tries), self._retry_secs - tried))

    def _evaluate(self, script: _Script, *args: str | float) -> Any:
        try:
            return self._execute("EVALSHA", script.sha, 1, self._name, *args)
        except redis.exceptions.NoScriptError:  # first use, or the server was restarted
            return self._execute("EVAL", script.source, 1, self._name, *args)

    def _address(self) -> str:
        options = self._redis.connection_pool.connection_kwargs
        return options.get("path") or f"{options.get('host')}:{options.get('port')}"

    def _hold(self, item: bytes, lease: _Lease) -> None:
        with self._changed:
            self._held.setdefault(item, []).append(lease)
            if self._heart is None:
                self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
                self._heart.start()
            elif lease.renew_at < self._next_beat:
                self._changed.notify()

    def _beat(self) -> None:
        """Renew everything held, in one call per beat, until nothing is held."""
        while leases := self._wait_until_due():
            numbers = [arg for it in leases for arg in (it.n, math.ceil(it.secs * 1000))]
            try:
                gone = self._evaluate(_RENEW, self._session, *numbers)
                share = 3
            except redis.RedisError:  # the worker itself will meet it; here: soon try again
                gone, share = (), 10
            with self._changed:
                for it in leases:
                    it.lost = it.n in gone
                    it.renew_at = time.monotonic() + it.secs / share

    def _wait_until_due(self) -> list[_Lease]:
        with self._changed:
            while True:
                leases = [it for same in self._held.values() for it in same if not it.lost]
                if not leases:
                    self._heart = None
                    return []
                now = time.monotonic()
                due = min(it.renew_at for it in leases)
                if due <= now:
                    return leases
                # Completing doesn't wake the thread, and a thread that finds nothing held ends
                # within a second: one thread per item would cost more than leasing it.
                self._next_beat = min(due, now + 1)
                self._changed.wait(self._next_beat - now)
