"""A watch goes on after whatever happens to its connection, and ends at its deadline.

The API server here is a real HTTP server that plays a script, because a real one can't be made
to drop a connection at a chosen byte.
"""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from harness import kube as kubes
from harness.errors import ClusterFailure
from harness.kube import Expired, Kube


def pod(name, version):
    return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version)}}


def listing(version, *pods):
    return 200, [{"metadata": {"resourceVersion": str(version)}, "items": list(pods)}]


def changes(*pairs):
    return 200, [{"type": kind, "object": found} for kind, found in pairs]


DROP = object()


@pytest.fixture
def api(tmp_path, monkeypatch):
    """`api.script` is what the server answers, in order; `api.asked` what it was asked."""
    monkeypatch.setattr(kubes, "RECONNECT_SECONDS", 0.01)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            server.asked.append({k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()})
            if not server.script:
                time.sleep(0.05)
                status, lines = 200, []
            else:
                status, lines = server.script.pop(0)
            self.send_response(status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in lines:
                if line is DROP:
                    self.close_connection = True
                    return
                data = json.dumps(line).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.script, server.asked = [], []
    server.handle_error = lambda *_: None  # a client that left in the middle is what is tested
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "users": [{"name": "x", "user": {}}],
        "clusters": [
            {"name": "x", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    server.kube = Kube(tmp_path / "kubeconfig")
    yield server
    server.kube.close()
    server.shutdown()
    server.server_close()


def watched(api, count, seconds=5.0):
    stream = api.kube.watch(
        api.kube.core.list_namespaced_pod, "default", deadline=time.monotonic() + seconds
    )
    return [
        (kind, found["metadata"]["name"]) for kind, found in (next(stream) for _ in range(count))
    ]


def test_what_is_there_then_its_changes(api):
    api.script = [
        listing(5, pod("a", 1)),
        changes(("MODIFIED", pod("a", 6)), ("BOOKMARK", pod("", 7)), ("DELETED", pod("a", 8))),
    ]
    assert watched(api, 3) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert api.asked[1]["resourceVersion"] == "5"


def test_it_resumes_where_the_connection_dropped(api):
    api.script = [
        listing(5),
        (200, [{"type": "ADDED", "object": pod("a", 6)}, DROP]),
        changes(("ADDED", pod("b", 7))),
    ]
    assert watched(api, 2) == [("ADDED", "a"), ("ADDED", "b")]
    assert api.asked[2]["resourceVersion"] == "6"


@pytest.mark.parametrize(
    "gone",
    [(410, [{"code": 410}]), changes(("ERROR", {"code": 410, "message": "too old"}))],
)
def test_it_lists_again_when_the_server_forgot_and_tells_what_disappeared(api, gone):
    api.script = [
        listing(5, pod("a", 1), pod("b", 2), pod("c", 3)),
        gone,
        listing(9, pod("b", 2), pod("c", 8), pod("d", 9)),
    ]
    assert watched(api, 6)[3:] == [("DELETED", "a"), ("MODIFIED", "c"), ("ADDED", "d")]


def test_it_reaches_again_for_a_server_that_is_away(api):
    api.script = [(503, [{}]), (500, [{}]), listing(1, pod("a", 1))]
    assert watched(api, 1) == [("ADDED", "a")]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_for_good_is_told(api, status):
    api.script = [(status, [{}])]
    with pytest.raises(ClusterFailure, match=f"answered {status}"):
        watched(api, 1)


def test_it_ends_at_its_deadline(api):
    api.script = [listing(1)]
    with pytest.raises(Expired):
        watched(api, 1, seconds=0.2)


def test_closing_ends_it(api):
    api.script = [listing(1, pod("a", 1))]
    stream = api.kube.watch(
        api.kube.core.list_namespaced_pod, "default", deadline=time.monotonic() + 60
    )
    next(stream)
    api.kube.close()
    assert list(stream) == []


def test_a_wait_tells_what_it_saw_instead(api):
    api.script = [listing(1, pod("a", 1))]
    with pytest.raises(ClusterFailure) as caught:
        api.kube.wait_for(
            lambda found: None,
            api.kube.core.list_namespaced_pod,
            "default",
            awaited="the pod a Ready",
            seconds=0.2,
            describe=lambda found: f"version {found['metadata']['resourceVersion']}",
        )
    assert str(caught.value) == (
        "the pod a Ready was awaited for 0 s, but version 1 was seen; see the run's diagnostics."
    )


def test_a_wait_gives_what_its_condition_gives(api):
    api.script = [listing(1, pod("a", 1)), changes(("ADDED", pod("b", 2)))]
    found = api.kube.wait_for(
        lambda found: found["metadata"]["name"] == "b" or None,
        api.kube.core.list_namespaced_pod,
        "default",
        awaited="b",
        seconds=5,
    )
    assert found is True
