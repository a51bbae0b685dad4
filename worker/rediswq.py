"""A work queue in Redis: leases, heartbeats, and items that come back from dead workers.

- Delivery is at least once, and a completion takes effect once. Each step is one script on the
  server, so that an item is always in exactly one list: waiting, processing or failed.
- A lease is a visibility timeout, by the server's clock only. A heartbeat renews it while its
  process lives, however long the work takes. If the process dies or stalls, the lease expires,
  and the next `lease` or `empty` of anybody puts the item back at the head of the queue.
- The lease id is a fencing token: `complete` under a lease that somebody reclaimed returns
  False and changes nothing. An expired lease that nobody reclaimed yet is still good.
- Items are bytes, first in, first out; equal ones are separate. All is as durable as the one
  Redis that keeps it: 6.2 or newer, or Valkey; no cluster.

NAME                       list: the waiting items; ``rpush NAME item`` adds one
NAME:processing            list: the items held by somebody, in the order of leasing
NAME:leases                sorted set: lease ids ``<session>:<n>`` by expiry, in Unix ms
NAME:leased_by_session:S   hash: n -> item, for everything that session S holds
NAME:completed_by:S        string: the last n that session S completed; kept for a day
NAME:lost_leases           hash: item -> how many leases on it expired since its last completion
NAME:failed                list: the items that lost max_deliveries leases; nobody gets them
"""

import math
import os
import threading
import time
import uuid
from contextlib import suppress
from hashlib import sha1
from itertools import count
from typing import Any

import redis

_KEYS = """
local call, queue, session, n = redis.call, KEYS[1], ARGV[1], ARGV[2]
local processing, leases, lost = queue..':processing', queue..':leases', queue..':lost_leases'
local held_by = queue..':leased_by_session:' local held = held_by..session
"""
_NOW = "local t = call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)"
_RECLAIM = """
local expired = {}
for _, id in ipairs(call('ZRANGEBYSCORE', leases, '-inf', now)) do
  local session, n = id:match('(.*):(.*)')
  local item = call('HGET', held_by..session, n)
  call('HDEL', held_by..session, n) call('ZREM', leases, id)
  if item then table.insert(expired, {item, call('LPOS', processing, item) or 0}) end
end
-- the last leased is pushed first, so that the first leased ends up at the head
table.sort(expired, function(a, b) return a[2] > b[2] end)
for _, it in ipairs(expired) do
  call('LREM', processing, 1, it[1])
  local again = call('HINCRBY', lost, it[1], 1) < tonumber(ARGV[3])  -- max_deliveries
  call(again and 'LPUSH' or 'RPUSH', again and queue or queue..':failed', it[1])
end
"""
# gives the item, the same again to a retry; or in how many ms a lease may expire; or nil: none
_LEASE = f"""{_KEYS} {_NOW} {_RECLAIM}
local item = call('HGET', held, n) or call('LMOVE', queue, processing, 'LEFT', 'RIGHT')
if not item then
  local oldest = call('ZRANGE', leases, 0, 0, 'WITHSCORES')[2] return oldest and oldest - now
end
call('HSET', held, n, item) call('ZADD', leases, now + ARGV[4], session..':'..n)
return item
"""
# a retry finds n to be the last completed; even if a delayed copy of lease n took an item since
_COMPLETE = f"""{_KEYS}
local completed, item = queue..':completed_by:'..session, call('HGET', held, n)
if not item then return call('GET', completed) == n end
if call('SET', completed, n, 'EX', 86400, 'GET') == n then return true end
call('HDEL', held, n) call('ZREM', leases, session..':'..n) call('LREM', processing, 1, item)
call('HDEL', lost, item) return true
"""
# takes n, ms, n, ms...; gives every n whose lease is gone
_RENEW = f"""{_KEYS} {_NOW} local gone = {{}}
for i = 2, #ARGV, 2 do local id = session..':'..ARGV[i]
  if not call('ZSCORE', leases, id) then table.insert(gone, tonumber(ARGV[i])) end
  call('ZADD', leases, 'XX', now + ARGV[i + 1], id)
end
return gone
"""
_EMPTY = f"{_KEYS} {_NOW} {_RECLAIM} return call('EXISTS', queue, leases) == 0"
_SHA = {lua: sha1(lua.encode()).hexdigest() for lua in (_LEASE, _COMPLETE, _EMPTY)}  # noqa: S324


class RedisUnreachable(redis.ConnectionError):
    """Redis stayed away for as long as the caller allowed; the call may have taken effect."""


class RedisWQ:
    """A worker's end of the queue ``name``; its threads may share it.

    Put an item aside when ``max_deliveries`` leases on it expired; None: never. Go on for
    ``retry_secs`` when Redis is away, then raise RedisUnreachable. The rest is for `redis.Redis`.
    """

    def __init__(
        self, name: str, *, max_deliveries: int | None = None, retry_secs: float = 60, **kwargs: Any
    ) -> None:
        # items are bytes; and _call retries by itself, so that it can tell for how long it tried
        self._redis = redis.Redis(**{**kwargs, "decode_responses": False, "retry": None})
        self._options = self._redis.connection_pool.connection_kwargs
        self._name, self._retry_secs, self._pid = name, retry_secs, 0
        self._max_deliveries = max_deliveries or math.inf
        self.sessionID()

    def sessionID(self) -> str:
        """Return the id under which this process leases; a forked child is another worker."""
        if self._pid != os.getpid():
            self._pid, self._session, self._numbers = os.getpid(), str(uuid.uuid4()), count(1)
            self._held: dict[int, tuple[bytes, float]] = {}  # n -> item, lease_secs
            self._changed, self._completing = threading.Condition(), threading.Lock()
            self._beat_at = math.inf  # when to renew, by time.monotonic(); inf: no thread runs
            self._direct: Any = None  # saves taking a connection from the pool for every call
        return self._session

    def empty(self) -> bool:
        """Return whether all work is done: nothing waits and nobody holds anything."""
        return bool(self._call(_EMPTY, self.sessionID(), 0, self._max_deliveries))

    def lease(
        self, lease_secs: float = 60, block: bool = True, timeout: float | None = None
    ) -> bytes | None:
        """Return the next item, for `complete` when done; None if none came in ``timeout`` seconds.

        Without ``block`` don't wait. The lease ends ``lease_secs`` after the last heartbeat.
        """
        if lease_secs < 0.001:
            raise ValueError(f"a lease of {lease_secs} s is over before it starts")
        session, n, lease_ms = self.sessionID(), next(self._numbers), math.ceil(lease_secs * 1000)
        deadline = time.monotonic() + (math.inf if timeout is None else timeout)
        while True:
            found = self._call(_LEASE, session, n, self._max_deliveries, lease_ms)
            if isinstance(found, bytes):
                self._hold(n, found, lease_secs)
                return found
            left = deadline - time.monotonic()
            if not block or left <= 0:
                return None
            self._wait(left if found is None else min(left, found / 1000))

    def complete(self, item: bytes) -> bool:
        """Declare ``item`` done; return whether that counted, so False for a lease lost."""
        session = self.sessionID()
        with self._completing:  # in turn: Redis remembers no more than a session's last one
            n = next((n for n, (held, _) in list(self._held.items()) if held == item), 0)
            counted = n and self._call(_COMPLETE, session, n)
            self._held.pop(n, None)
        return bool(counted)

    def _call(self, lua: str, *args: str | float) -> Any:
        """Run a script, as often as it takes while Redis is away; each may be repeated."""
        pause, began = 0.05, time.monotonic()
        while True:
            try:
                self._direct = self._direct or self._redis.client()  # type: ignore[no-untyped-call]
                with suppress(redis.exceptions.NoScriptError):  # first use, or Redis was restarted
                    return self._direct.execute_command("EVALSHA", _SHA[lua], 1, self._name, *args)
                return self._direct.execute_command("EVAL", lua, 1, self._name, *args)
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if (tried := time.monotonic() - began) >= self._retry_secs:
                    place = self._options.get("path") or "{host}:{port}".format(**self._options)
                    message = f"no answer from Redis at {place} for {tried:.1f} s: {error}"
                    raise RedisUnreachable(message) from error
            time.sleep(min(pause, self._retry_secs - tried))
            pause = min(2 * pause, 2)

    def _wait(self, secs: float) -> None:
        """Block on the server until an item is there; the last is moved onto itself: no change."""
        # less than the socket's timeout, or silence looks like a dead server; and 0 is for ever
        secs = max(0.001, min(secs, (self._options.get("socket_timeout", 5) or 120) / 2))
        move: Any = self._redis.blmove
        with suppress(redis.ConnectionError, redis.TimeoutError):  # _call will meet them again
            move(self._name, self._name, secs, "RIGHT", "RIGHT")

    def _hold(self, n: int, item: bytes, lease_secs: float) -> None:
        due = time.monotonic() + lease_secs / 3
        with self._changed:
            self._held[n] = item, lease_secs
            if self._beat_at == math.inf:
                threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
            if due < self._beat_at:
                self._beat_at = due
                self._changed.notify()

    def _beat(self) -> None:
        """Renew all that is held, in one call per beat, until nothing is held."""
        while True:
            with self._changed:
                # Completing wakes nobody, as that would slow every item: this ends a second later.
                while (held := list(self._held.items())) and time.monotonic() < self._beat_at:
                    self._changed.wait(min(1, self._beat_at - time.monotonic()))
                if not held:
                    self._beat_at = math.inf
                    return
                self._beat_at = time.monotonic() + min(secs for _, (_, secs) in held) / 3
            numbers = [arg for n, (_, secs) in held for arg in (n, math.ceil(secs * 1000))]
            with suppress(redis.RedisError):  # the worker will meet it; the next beat tries again
                for n in self._redis.eval(_RENEW, 1, self._name, self._session, *numbers):
                    self._held.pop(n, None)
