"""The worker's files: the document's program line for line, and what its image is made of."""

import os
import re
from pathlib import Path

WORKER = Path(__file__).resolve().parents[2] / "worker"

# as the document shows it; its indentation is what Python makes of it
DOCUMENT = """\
#!/usr/bin/env python
import time
import rediswq
host="redis"
# Uncomment next two lines if you do not have Kube-DNS working.
# import os
# host = os.getenv("REDIS_SERVICE_HOST")
q = rediswq.RedisWQ(name="job2", host=host)
print("Worker with sessionID: " + q.sessionID())
print("Initial queue state: empty=" + str(q.empty()))
while not q.empty():
item = q.lease(lease_secs=10, block=True, timeout=2)
if item is not None:
itemstr = item.decode("utf-8")
print("Working on " + itemstr)
time.sleep(10) # Put your actual work here instead of sleep.
q.complete(item)
else:
print("Waiting for work")
print("Queue empty, exiting")
"""


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions; it has no continuation lines."""
    lines = (line.strip() for line in dockerfile.splitlines())
    return [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


def test_the_worker_is_the_documents():
    lines = (WORKER / "worker.py").read_text().splitlines()
    assert [line.strip() for line in lines if line.strip()] == DOCUMENT.splitlines()


def test_the_worker_compiles_to_the_documents_structure():
    source = (WORKER / "worker.py").read_text()
    compile(source, "worker.py", "exec")
    depth = {line.strip(): len(line) - len(line.lstrip()) for line in source.splitlines()}
    step = depth["item = q.lease(lease_secs=10, block=True, timeout=2)"]
    assert step > 0
    assert depth["if item is not None:"] == depth["else:"] == step
    assert depth["q.complete(item)"] == depth['print("Waiting for work")'] > step
    assert depth['print("Queue empty, exiting")'] == 0


def test_the_worker_is_executable():
    assert os.access(WORKER / "worker.py", os.X_OK)


def test_the_image():
    image = instructions((WORKER / "Dockerfile").read_text())
    assert image == [
        ("FROM", "python"),
        ("RUN", "pip install redis==8.1.0"),
        ("COPY", "./worker.py /worker.py"),
        ("COPY", "./rediswq.py /rediswq.py"),
        ("ENV", "PYTHONUNBUFFERED=1"),
        ("CMD", "python worker.py"),
    ]


def test_every_copied_file_is_there():
    for _, name in re.findall(r"^(COPY) (\S+)", (WORKER / "Dockerfile").read_text(), re.MULTILINE):
        assert (WORKER / name).is_file()


def test_the_library_fits_a_reading():
    lines = (WORKER / "rediswq.py").read_text().splitlines()
    assert len(lines) < 200
    imported = {
        line.split()[1].partition(".")[0] for line in lines if line.startswith(("import ", "from "))
    }
    assert imported - {"redis"} <= set(__import__("sys").stdlib_module_names)
