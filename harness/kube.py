"""The Kubernetes API: lists, watches that survive a dropped connection, pods' logs.

Objects are plain dicts as the API has them, so that whatever decides about them can be tested
with what ``kubectl get -o json`` prints.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward

from harness.errors import ClusterFailure

Object = dict[str, Any]
T = TypeVar("T")

NAMESPACE = "default"
CONNECT_SECONDS = 5.0
# A watch with nothing to tell is renewed this often, so that a connection that died without
# a word (a paused node, a firewall) is noticed.
QUIET_SECONDS = 30.0
# Between attempts to reach an API server that does not answer.
RECONNECT_SECONDS = 0.5


class Expired(Exception):
    """The deadline of a wait passed."""


class Kube:
    """A cluster's API, through a kubeconfig file."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.closed = threading.Event()
        self._open: set[urllib3.HTTPResponse] = set()
        self._lock = threading.Lock()
        api = self._client()
        self.core = client.CoreV1Api(api)
        self.batch = client.BatchV1Api(api)
        self.discovery = client.DiscoveryV1Api(api)

    def _client(self) -> client.ApiClient:
        configuration = client.Configuration()
        config.load_kube_config(str(self.kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
        configuration.retries = False  # reconnecting is decided here, not inside urllib3
        configuration.connection_pool_maxsize = 64
        return client.ApiClient(configuration)

    def __enter__(self) -> Kube:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every open watch and log, from any thread."""
        self.closed.set()
        with self._lock:
            for response in self._open:
                try:
                    response.shutdown()
                except (OSError, ValueError, RuntimeError):
                    continue  # it has just ended by itself

    def ask(self, call: Callable[..., Any], *arguments: str, **options: Any) -> Object:
        """Call one of the client's read or list methods and give its JSON.

        Raises:
            ApiException: the API refused.
            urllib3.exceptions.HTTPError: it can't be reached.
        """
        response = call(
            *arguments,
            **options,
            _preload_content=False,
            _request_timeout=(CONNECT_SECONDS, QUIET_SECONDS),
        )
        found: Object = json.loads(response.data)
        return found

    def get(self, call: Callable[..., Any], *arguments: str, **options: Any) -> Object:
        """As `ask`, for where a failure ends the run.

        Raises:
            ClusterFailure: the API refused or can't be reached.
        """
        try:
            return self.ask(call, *arguments, **options)
        except ApiException as error:
            raise ClusterFailure(
                f"the Kubernetes API answered {error.status} {error.reason} to "
                f"{call.__name__} {' '.join(arguments)}; see the run's diagnostics."
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise ClusterFailure(
                f"the Kubernetes API did not answer to {call.__name__} "
                f"({type(error).__name__}); see the run's diagnostics."
            ) from error

    def stream(
        self, call: Callable[..., Any], *arguments: str, read_seconds: float, **options: Any
    ) -> Iterator[bytes]:
        """The lines of a streamed answer as they come, without their line ends.

        Raises:
            ApiException: the API refused.
            urllib3.exceptions.HTTPError: it can't be reached, or the connection broke.
        """
        response = call(
            *arguments,
            **options,
            _preload_content=False,
            _request_timeout=(CONNECT_SECONDS, read_seconds),
        )
        with self._lock:
            self._open.add(response)
        try:
            rest = b""
            for chunk in response.stream(amt=None, decode_content=False):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
                if self.closed.is_set():
                    return
            if rest:
                yield rest
        finally:
            with self._lock:
                self._open.discard(response)
            response.close()

    def watch(
        self, call: Callable[..., Any], *arguments: str, deadline: float, **options: Any
    ) -> Iterator[tuple[str, Object]]:
        """What is there, then each change of it: ``("ADDED", object)`` and so on.

        After a dropped connection it resumes where it was; after the server forgot that place
        (410 Gone) it lists again, and tells what disappeared meanwhile as ``DELETED``.
        See the API reference, "Efficient detection of changes".

        Args:
            call: one of the client's list methods.
            arguments: its arguments, as a namespace.
            deadline: end of the wait on the `time.monotonic` clock.
            options: selectors.

        Raises:
            Expired: the deadline passed.
            ClusterFailure: the API refused for good.
        """
        known: dict[str, Object] = {}
        version = ""
        while not self.closed.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                raise Expired
            try:
                if not version:
                    listed = self.ask(call, *arguments, **options)
                    version = listed["metadata"]["resourceVersion"]
                    yield from _relisted(known, listed.get("items") or [])
                seconds = max(1, int(min(left, QUIET_SECONDS)))
                for line in self.stream(
                    call,
                    *arguments,
                    **options,
                    watch=True,
                    allow_watch_bookmarks=True,
                    resource_version=version,
                    timeout_seconds=seconds,
                    read_seconds=min(left, seconds) + 1,
                ):
                    change = json.loads(line)
                    kind, found = change["type"], change["object"]
                    if kind == "ERROR":
                        if found.get("code") != 410:
                            raise ClusterFailure(
                                f"a watch ended with {found.get('message')}; run it again."
                            )
                        version = ""
                        break
                    version = found["metadata"]["resourceVersion"]
                    if kind == "BOOKMARK":
                        continue
                    _remember(known, kind, found)
                    yield kind, found
                    if time.monotonic() > deadline:
                        raise Expired
            except ApiException as error:
                if error.status == 410:
                    version = ""
                elif error.status and error.status < 500 and error.status != 429:
                    raise ClusterFailure(
                        f"the Kubernetes API answered {error.status} {error.reason} to a watch; "
                        "see the run's diagnostics."
                    ) from error
                else:
                    self._pause(deadline)
            except (urllib3.exceptions.HTTPError, json.JSONDecodeError, OSError):
                self._pause(deadline)

    def _pause(self, deadline: float) -> None:
        """Before reaching again for a server that is away; ends at once with `close`."""
        self.closed.wait(max(0.0, min(RECONNECT_SECONDS, deadline - time.monotonic())))

    def wait_for(
        self,
        condition: Callable[[Object], T | None],
        call: Callable[..., Any],
        *arguments: str,
        awaited: str,
        seconds: float,
        describe: Callable[[Object], str] = str,
        **options: Any,
    ) -> T:
        """Watch until `condition` gives something for an object, and give that.

        Args:
            condition: gives None while it does not hold; may raise to end the wait early.
            awaited: what is awaited, for the message.
            seconds: the deadline.
            describe: the last object's state in a few words, for the message.

        Raises:
            ClusterFailure: it did not come in time; says what was seen instead.
        """
        last: Object | None = None
        deadline = time.monotonic() + seconds
        try:
            for kind, found in self.watch(call, *arguments, deadline=deadline, **options):
                last = None if kind == "DELETED" else found
                if last and (result := condition(found)) is not None:
                    return result
        except Expired:
            pass
        seen = describe(last) if last else "nothing"
        raise ClusterFailure(
            f"{awaited} was awaited for {seconds:.0f} s, but {seen} was seen; "
            "see the run's diagnostics."
        )

    def last_warning(self, name: str) -> str:
        """The newest warning event about an object, as ``FailedMount: why``; empty if none."""
        try:
            events = self.ask(
                self.core.list_namespaced_event,
                NAMESPACE,
                field_selector=f"involvedObject.name={name},type=Warning",
            )["items"]
        except (ApiException, urllib3.exceptions.HTTPError):
            return ""
        if not events:
            return ""
        newest = max(events, key=lambda event: int(event["metadata"]["resourceVersion"]))
        return f"{newest.get('reason')}: {newest.get('message')}"

    def forward(self, pod: str, port: int) -> socket.socket:
        """A connection to a port of a pod, through the API server; no local port is opened."""
        core = client.CoreV1Api(self._client())  # portforward borrows the client while it calls
        forwarded = portforward(
            core.connect_get_namespaced_pod_portforward, pod, NAMESPACE, ports=str(port)
        )
        connection: socket.socket = forwarded.socket(port)
        return connection


def _remember(known: dict[str, Object], kind: str, found: Object) -> None:
    uid = found["metadata"]["uid"]
    if kind == "DELETED":
        known.pop(uid, None)
    else:
        known[uid] = found


def _relisted(known: dict[str, Object], items: list[Object]) -> Iterator[tuple[str, Object]]:
    """The changes that lead from what was known to what a new list has."""
    listed = {item["metadata"]["uid"]: item for item in items}
    for uid in [uid for uid in known if uid not in listed]:
        yield "DELETED", known.pop(uid)
    for uid, item in listed.items():
        before = known.get(uid)
        known[uid] = item
        if before is None:
            yield "ADDED", item
        elif before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            yield "MODIFIED", item
