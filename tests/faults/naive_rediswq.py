"""A queue that loses items, for the tests to prove that they can tell.

The obvious algorithm: move an item with one command, then give it a lease with a second one.
A worker killed between the two leaves an item that is in progress, without a lease, for ever:
nothing ever looks for leases that are missing. Same interface as the real one.
"""

import hashlib
import uuid
from typing import Any

import redis


class RedisWQ:
    """The queue ``name``, done wrong."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        self._redis = redis.Redis(**kwargs)
        self._name, self._processing = name, f"{name}:processing"
        self._session = str(uuid.uuid4())

    def sessionID(self) -> str:  # noqa: N802
        """Return the worker's id."""
        return self._session

    def _lease_key(self, item: bytes) -> str:
        return f"{self._name}:lease:{hashlib.sha256(item).hexdigest()}"

    def empty(self) -> bool:
        """Return whether both lists are empty."""
        return not self._redis.exists(self._name, self._processing)

    def lease(
        self, lease_secs: float = 60, block: bool = True, timeout: float | None = None
    ) -> bytes | None:
        """Move an item; then, if still alive, lease it."""
        lists = (self._name, self._processing)
        if block:
            item = self._redis.blmove(*lists, timeout or 0, "LEFT", "RIGHT")
        else:
            item = self._redis.lmove(*lists, "LEFT", "RIGHT")
        if item is not None:
            self._redis.set(self._lease_key(item), self._session, px=int(lease_secs * 1000))
        return item

    def complete(self, item: bytes) -> bool:
        """Remove the item and its lease, whoever holds it by now."""
        self._redis.delete(self._lease_key(item))
        return bool(self._redis.lrem(self._processing, 1, item))
