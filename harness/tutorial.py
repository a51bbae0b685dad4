"""The whole run, in the document's order: a reader can follow it here from top to bottom."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from harness import cluster as clusters
from harness import diagnostics, engine, job, manifests, process, queue, signals, tools
from harness.cluster import Cluster
from harness.engine import Engine
from harness.errors import HarnessError, TutorialFailure
from harness.events import (
    Emit,
    JobEnded,
    LogLine,
    Progress,
    QueueObserved,
    StageFinished,
    StageStarted,
    VerdictReached,
    VersionFound,
)
from harness.images import sources, worker
from harness.images.supply import Supply
from harness.images.worker import WorkerImage
from harness.job import JobRun
from harness.kube import NAMESPACE, Kube, Object
from harness.logs import container_status
from harness.settings import Settings
from harness.verdict import WORKING, Verdict, judge

REDIS_SECONDS = 120.0
ENDPOINT_SECONDS = 60.0


def run(settings: Settings, emit: Emit, cancellation: process.Cancellation) -> Verdict:
    """Reproduce the tutorial on a cluster of its own and judge it.

    Nothing that it made is left afterwards, however it ends, unless the settings keep it.

    Raises:
        HarnessError: it ended before a verdict.
        Interrupted: a signal ended it.
    """
    documents = prepare(settings)
    with ExitStack() as made:
        try:
            ground = lay_ground(settings, made, emit, cancellation)
            start_redis(ground, documents.redis(ground.redis_image), emit)
            fill_queue(settings, ground.cluster.kube, emit)
            show_worker(ground, emit)
            ran = run_job(settings, ground, documents.job(ground.worker.reference), emit)
            return reach_verdict(settings, ground, ran, emit)
        except BaseException:
            cancellation.cancel()  # before what was made is undone, or it goes on underneath
            raise


def up(settings: Settings, emit: Emit, cancellation: process.Cancellation) -> Ground:
    """Create a cluster with the images in it, and keep it for runs of that name.

    Raises:
        HarnessError: it did not come up.
        Interrupted: a signal ended it.
    """
    with ExitStack() as made:
        try:
            return lay_ground(settings, made, emit, cancellation)
        except BaseException:
            cancellation.cancel()
            raise


@dataclass(frozen=True)
class Documents:
    """The document's manifests, to be completed with a run's images."""

    settings: Settings

    def redis(self, image: str) -> tuple[manifests.Document, manifests.Document]:
        """The Redis pod on `image`, and its service as it is."""
        overrides: dict[str, object] = {manifests.POD_IMAGE: image}
        if image == "redis:latest":
            # it was loaded into the nodes; the default for `latest` is to pull it again
            overrides = {manifests.POD_PULL_POLICY: "IfNotPresent"}
        folder = self.settings.manifests
        return (
            manifests.prepare(folder / "redis-pod.yaml", "Pod", overrides),
            manifests.prepare(folder / "redis-service.yaml", "Service", {}),
        )

    def job(self, image: str) -> manifests.Document:
        """The Job on `image`, which the document asks the reader to set."""
        overrides: dict[str, object] = {
            manifests.JOB_IMAGE: image,
            manifests.JOB_PARALLELISM: self.settings.parallelism,
        }
        return manifests.prepare(self.settings.manifests / "job.yaml", "Job", overrides)


def prepare(settings: Settings) -> Documents:
    """Read every manifest before anything is made, so that bad input costs nothing.

    Raises:
        UsageFailure: a manifest that is none.
    """
    documents = Documents(settings)
    documents.redis("redis")
    documents.job("job-wq-2")
    return documents


@dataclass(frozen=True)
class Ground:
    """What a run stands on.

    Attributes:
        cluster: the kind cluster, its nodes Ready.
        redis_image: reference of the redis image, which the nodes have.
        worker: the worker image, which they have, too.
    """

    cluster: Cluster
    redis_image: str
    worker: WorkerImage


def lay_ground(
    settings: Settings, made: ExitStack, emit: Emit, cancellation: process.Cancellation
) -> Ground:
    """Before you begin: an engine, the images, a cluster with at least two worker nodes.

    Image pulls and the worker's build go on while the cluster is created.

    Args:
        settings: of the run.
        made: takes what undoes each thing that is made.
        emit: told of the progress.
        cancellation: ends programs when the run is interrupted.
    """
    with stage(emit, "engine", "Find a Docker engine"):
        docker = engine.ensure(lambda text: emit(Progress("engine", text)), cancellation)
        emit(VersionFound("docker", docker.version))
        sweep(docker, emit)
        sources.require_space(docker, sources.RUN_BYTES, "a run")
    pool = made.enter_context(ThreadPoolExecutor(8, thread_name_prefix="images"))
    with stage(emit, "images", "Get the images of the nodes, of python and of redis"):
        supply = Supply(("node", "redis", "python"), docker, pool, emit, cancellation)
        node = supply.get("node")
        kind = tools.kind(emit, cancellation)
        kubectl = tools.kubectl(docker, node.reference, emit, cancellation)
    redis = pool.submit(supply.get, "redis")
    cluster = Cluster(docker, settings.name, node_image=node.reference, kind=kind, kubectl=kubectl)
    with signals.shield():
        fresh = cluster.reserve(kept=settings.keep)
        made.callback(release if fresh else leave, cluster, settings, emit)
        made.push(partial(explain, cluster, settings, emit))
    built = pool.submit(
        lambda: worker.build(docker, supply.get("python").reference, sleep=settings.sleep)
    )
    if fresh:
        with stage(emit, "cluster", f"Create a kind cluster with {settings.workers} worker nodes"):
            cluster.create(settings.workers)
    emit(VersionFound("kubernetes", cluster.kubernetes_version()))
    with stage(emit, "load", "Load the redis and worker images into the nodes"):
        images = redis.result().reference, built.result()
        cluster.load_images(images[0], images[1].reference)
    return Ground(cluster, *images)


def sweep(docker: Engine, emit: Emit) -> None:
    """Delete what killed runs left: clusters of ours whose process is gone, unless kept."""
    for found in clusters.find_all(docker):
        if not found.running and not found.kept:
            emit(Progress("engine", f"deleting {found.name}, which a killed run left behind"))
            clusters.delete(docker, found.name)


def explain(
    cluster: Cluster,
    settings: Settings,
    emit: Emit,
    _: object,
    error: BaseException | None,
    __: object,
) -> None:
    """Save diagnostics when a run fails; the last arguments are those of a context's exit."""
    if isinstance(error, HarnessError):
        diagnostics.collect(cluster, settings.out / "diagnostics", emit)


def release(cluster: Cluster, settings: Settings, emit: Emit) -> None:
    """Delete the run's cluster, or say how to use the one that is kept."""
    if settings.keep and cluster.ready:
        kubeconfig = f"KUBECONFIG={cluster.kubeconfig_path}"
        down = f"python -m harness down --name {cluster.name}"
        emit(Progress("clean-up", f"kept {cluster.name}: {kubeconfig}; `{down}` deletes it"))
        return
    with signals.shield(), stage(emit, "clean-up", "Delete the cluster"):
        cluster.delete()


def leave(cluster: Cluster, settings: Settings, emit: Emit) -> None:
    """Take the document's objects out of a cluster that was there before the run."""
    if settings.keep:
        return
    title = f"Delete the document's objects from {cluster.name}"
    with signals.shield(), stage(emit, "clean-up", title):
        remove_objects(cluster)


def remove_objects(cluster: Cluster) -> None:
    """Delete the document's Job, pods and service, and wait until they are gone.

    The pods go on their own, because a Job's deletion leaves them their whole grace period, in
    which a worker that sleeps would sleep on.
    """
    for words in (
        ("job", job.JOB, "--cascade=orphan"),
        ("pod", f"--selector=batch.kubernetes.io/job-name={job.JOB}", "--grace-period=1"),
        ("pod", queue.REDIS_POD, "--grace-period=1"),
        ("service", "redis"),
    ):
        cluster.kubectl("delete", *words, "--ignore-not-found", stderr=subprocess.STDOUT)


def start_redis(
    ground: Ground, documents: tuple[manifests.Document, manifests.Document], emit: Emit
) -> None:
    """The document's "Starting Redis".

    Raises:
        TutorialFailure: the pod can't run.
        ClusterFailure: the pod or the service was not ready in time.
    """
    pod, service = documents
    kube = ground.cluster.kube
    with stage(
        emit, "redis", "Start Redis", "kubectl apply -f redis-pod.yaml -f redis-service.yaml"
    ):
        apply(ground.cluster, pod, emit)
        apply(ground.cluster, service, emit)
        kube.wait_for(
            lambda found: ready(found, "master"),
            kube.core.list_namespaced_pod,
            NAMESPACE,
            field_selector=f"metadata.name={pod.name}",
            awaited=f"the pod {pod.name} Ready",
            seconds=REDIS_SECONDS,
            describe=lambda found: trouble(kube, found, "master"),
        )
        # On a fresh cluster a Service has no endpoints for its first moments, and what is sent
        # to it then is lost.
        kube.wait_for(
            has_endpoint,
            kube.discovery.list_namespaced_endpoint_slice,
            NAMESPACE,
            label_selector=f"kubernetes.io/service-name={service.name}",
            awaited=f"an endpoint of the service {service.name}",
            seconds=ENDPOINT_SECONDS,
            describe=lambda _: "an endpoint slice without a ready endpoint",
        )


def fill_queue(settings: Settings, kube: Kube, emit: Emit) -> None:
    """The document's "Filling the Queue with tasks".

    Raises:
        TutorialFailure: Redis did not answer as the document shows.
    """
    with stage(emit, "queue", "Fill the queue", f'redis-cli -h redis rpush {queue.QUEUE} "…"'):
        client = queue.connect(kube)
        queue.wait_until_answering(client)
        queue.seed(client, settings.items, emit)


def show_worker(ground: Ground, emit: Emit) -> None:
    """The document's "Create an Image" and "Push the image", done while the cluster was made."""
    with stage(emit, "worker", "Build the worker image", "docker build -t job-wq-2 ."):
        for difference in ground.worker.differences:
            emit(difference)
        how = "built" if ground.worker.built else "there already, of the same content"
        emit(Progress("worker", f"{ground.worker.reference}: {how}"))


def run_job(settings: Settings, ground: Ground, document: manifests.Document, emit: Emit) -> JobRun:
    """The document's "Running the Job".

    Raises:
        TutorialFailure: the Job could not do its work or took too long.
    """
    waiting = f"kubectl wait --for=condition=complete --timeout={settings.timeout:.0f}s"
    client = queue.connect(ground.cluster.kube)

    def look(line: LogLine) -> None:
        if WORKING.fullmatch(line.text):
            state = queue.inspect(client)
            emit(QueueObserved(len(state.waiting), len(state.processing)))

    with stage(emit, "job", "Run the Job", f"kubectl apply -f ./job.yaml; {waiting} job/{job.JOB}"):
        started = time.monotonic()
        apply(ground.cluster, document, emit)
        ran = job.watch(
            ground.cluster.kubeconfig_path, emit=emit, seconds=settings.timeout, on_line=look
        )
        ideal = math.ceil(len(settings.items) / settings.parallelism) * settings.sleep
        emit(JobEnded(ran.ended - started, ideal))
        return ran


def reach_verdict(settings: Settings, ground: Ground, ran: JobRun, emit: Emit) -> Verdict:
    """Judge the run by everything that was seen of it."""
    cluster = ground.cluster
    with stage(emit, "verdict", "Judge the run", "kubectl logs pods/…"):
        verdict = judge(
            seeded=settings.items,
            lines=ran.lines,
            pods=ran.pods,
            job=ran.job,
            queue=queue.inspect(queue.connect(cluster.kube)),
        )
        emit(VerdictReached(verdict))
        if not verdict.holds:
            diagnostics.collect(cluster, settings.out / "diagnostics", emit)
        return verdict


@contextmanager
def stage(emit: Emit, name: str, title: str, command: str = "") -> Iterator[None]:
    """Tell of a section's start, and of its end when it ends well."""
    started = time.monotonic()
    emit(StageStarted(name, title, command))
    yield
    emit(StageFinished(name, time.monotonic() - started))


def apply(cluster: Cluster, document: manifests.Document, emit: Emit) -> None:
    """``kubectl apply -f``, and tell what was not the document's.

    Raises:
        TutorialFailure: the API server refused the manifest; quotes it.
    """
    for difference in document.differences:
        emit(difference)
    path = cluster.folder / document.file
    path.write_text(document.text())
    try:
        cluster.kubectl("apply", "-f", str(path), stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError as error:
        raise TutorialFailure(
            f"kubectl apply -f {document.file} failed: {error.output.strip()[-300:]}; "
            "correct the manifest."
        ) from error


def ready(pod: Object, container: str) -> bool | None:
    """True for a pod that is Ready, None for one that may become it.

    Raises:
        TutorialFailure: it can't.
    """
    if problem := job.fatal(pod, "see its log", container):
        raise TutorialFailure(problem)
    return True if container_status(pod, container).get("ready") else None


def trouble(kube: Kube, pod: Object, container: str) -> str:
    """A pod's state, and the newest warning about it."""
    warning = kube.last_warning(pod["metadata"]["name"])
    return job.pod_state(pod, container) + (f" ({warning})" if warning else "")


def has_endpoint(endpoints: Object) -> bool | None:
    """True for an EndpointSlice with an endpoint that takes connections."""
    found = endpoints.get("endpoints") or []
    return True if any(one["conditions"].get("ready") for one in found) else None
