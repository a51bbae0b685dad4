"""A worker as a process of its own, told what to do over its standard input.

As a script: `worker_process.py MODULE OPTIONS [SKEW]` reads one call per line, a tuple of the
method's name and its keyword arguments, and prints the result.
"""

import ast
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class WorkerProcess:
    """A process with one queue object in it."""

    def __init__(
        self, port: int, module: str = "rediswq", skew_secs: float = 0, **options: Any
    ) -> None:
        options = {"name": "job2", "host": "127.0.0.1", "port": port, **options}
        self._process = subprocess.Popen(
            [sys.executable, __file__, module, repr(options), str(skew_secs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'worker'}{os.pathsep}{ROOT}"},
        )
        self.session = self.result()

    def start(self, method: str, **arguments: Any) -> None:
        """Let it begin a call; `result` waits for its end."""
        self._process.stdin.write(repr((method, arguments)) + "\n")
        self._process.stdin.flush()

    def result(self) -> Any:
        """Return what the call returned."""
        return ast.literal_eval(self._process.stdout.readline())

    def call(self, method: str, **arguments: Any) -> Any:
        """Call and wait."""
        self.start(method, **arguments)
        return self.result()

    def freeze(self) -> None:
        """Stop it as a starved machine would, and return when it stands still."""
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as an out-of-memory killer would."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def drain(queue: Any, lease_secs: float) -> list[tuple[bytes, bool]]:
    """Do what is there; return each item with what completing it said."""
    done = []
    while not queue.empty():
        item = queue.lease(lease_secs=lease_secs, timeout=0.1)
        if item is not None:
            done.append((item, queue.complete(item)))
    return done


def spin(queue: Any, secs: float) -> None:
    """Keep the interpreter busy with pure Python, never waiting."""
    end = time.monotonic() + secs
    while time.monotonic() < end:
        pass


def serve(module: str, options: str, skew: str) -> None:
    """Do the calls that come in."""
    real_time = time.time
    time.time = lambda: real_time() + float(skew)
    queue = importlib.import_module(module).RedisWQ(**ast.literal_eval(options))
    print(repr(queue.sessionID()), flush=True)
    extras = {"drain": drain, "spin": spin}
    for line in sys.stdin:
        method, arguments = ast.literal_eval(line)
        call = extras.get(method) or getattr(type(queue), method)
        print(repr(call(queue, **arguments)), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
