"""OCI runtime wrapper: ask the kernel for no more than this host's root holds, then be runc.

``docker run --privileged`` asks for every capability. Where root itself lacks one, as inside
some virtual machines and containers, runc refuses ("unable to apply caps: operation not
permitted"). Dropping what can't be had anyway takes nothing from the container.

The harness installs a copy of this file for an engine that it starts itself. It imports nothing
but the standard library, because it runs as ``python3 -I -S`` from outside any environment.
See the OCI runtime specification, "Linux Process", for the fields.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

# capability numbers of <linux/capability.h>, in order
CAPABILITIES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
""".split()


def missing_capabilities(status: str) -> frozenset[str]:
    """Names of the capabilities outside a process's bounding set.

    Args:
        status: text of ``/proc/PID/status``.
    """
    bounding = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    mask = int(bounding.split()[1], 16)
    return frozenset(f"CAP_{name}" for n, name in enumerate(CAPABILITIES) if not mask & 1 << n)


def restrict(process: dict[str, Any], missing: frozenset[str]) -> None:
    """Drop from an OCI ``process`` object, in place, what needs a missing capability."""
    for kind, names in (process.get("capabilities") or {}).items():
        process["capabilities"][kind] = [name for name in names if name not in missing]
    if "CAP_SYS_RESOURCE" in missing:  # raising limits and lowering the OOM score need it
        process.pop("rlimits", None)
        process["oomScoreAdj"] = max(0, process.get("oomScoreAdj") or 0)


def option(arguments: list[str], *names: str) -> str | None:
    """The value of a command line option, in either spelling: ``--name v`` or ``--name=v``."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else arguments[index + 1]
    return None


def main(arguments: list[str]) -> None:
    """Rewrite the specification that `arguments` point to, then turn into runc."""
    missing = missing_capabilities(Path("/proc/self/status").read_text())
    path, key = None, ""
    if "create" in arguments or "run" in arguments:
        path, key = Path(option(arguments, "--bundle", "-b") or ".") / "config.json", "process"
    elif "exec" in arguments and (spec := option(arguments, "--process", "-p")):
        path = Path(spec)
    if path and missing:
        document = json.loads(path.read_text())
        restrict(document[key] if key else document, missing)
        path.write_text(json.dumps(document))
    os.execvp("runc", ["runc", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
