"""Break one thing in the middle of the tutorial, on the real cluster, and judge what came of it.

A scenario waits for its moment by watching the pods' lines, strikes once, and says beforehand what
must hold. An item that a broken pod had in its hands is started again; its completion counts once.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from harness import job, process, queue, signals, tutorial
from harness.errors import ClusterFailure, HarnessError, TutorialFailure, UsageFailure
from harness.events import Emit, LogLine, Progress, Struck, VerdictReached
from harness.images.worker import WorkerImage
from harness.logs import container_status
from harness.monitor import Monitor, completions
from harness.settings import Settings
from harness.tutorial import Ground
from harness.verdict import NO_FAULT, WORKING, Fault, Verdict, judge

ITEMS = ("apple", "banana", "cherry", "date")
JOB_SECONDS = 150.0
STRIKE_SECONDS = 60.0


@dataclass(frozen=True)
class Scene:
    """What a scenario's strike may use.

    Attributes:
        ground: the cluster and its images.
        line: the line that made the moment: a pod started its second item.
    """

    ground: Ground
    line: LogLine


@dataclass(frozen=True)
class Strike:
    """What a strike did.

    Attributes:
        text: in words, for the report.
        fault: what it excuses.
        late: items that it pushed.
    """

    text: str
    fault: Fault = NO_FAULT
    late: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """One thing to break.

    Attributes:
        name: for the command line.
        must_hold: what is promised, in a sentence.
        strike: does it; None where there is nothing to break.
        items: seeded before the Job.
    """

    name: str
    must_hold: str
    strike: Callable[[Scene], Strike] | None = None
    items: tuple[str, ...] = ITEMS


@dataclass(frozen=True)
class Outcome:
    """How a scenario ended: its verdict, or the sentence of the failure before one."""

    scenario: Scenario
    verdict: Verdict | None
    failure: str = ""

    @property
    def holds(self) -> bool:
        """True when what must hold held."""
        return self.verdict is not None and self.verdict.holds


def delete_pod(scene: Scene) -> Strike:
    """``kubectl delete pod``, as after an eviction, with no time to finish the item."""
    pod, item = scene.line.pod, _item(scene.line)
    scene.ground.cluster.kubectl("delete", "pod", pod, "--grace-period=1", "--wait=false")
    return Strike(f"deleted {pod} while it worked on {item}", Fault((item,), frozenset({pod})))


def kill_worker(scene: Scene) -> Strike:
    """SIGKILL to the worker's process, as the kernel does when memory runs out."""
    pod, item = scene.line.pod, _item(scene.line)
    cluster = scene.ground.cluster
    found = cluster.kube.get(cluster.kube.core.read_namespaced_pod, pod, "default")
    container = container_status(found, job.CONTAINER)["containerID"].removeprefix("containerd://")
    node = cluster.engine.client.containers.get(found["spec"]["nodeName"])
    code, said = node.exec_run(
        ["ctr", "--namespace=k8s.io", "task", "kill", "--signal=SIGKILL", "--all", container]
    )
    if code != 0:
        raise ClusterFailure(f"the worker in {pod} could not be killed ({said!r}); run it again.")
    return Strike(f"killed the worker in {pod} at {item}", Fault((item,), frozenset({pod})))


def push_late(scene: Scene) -> Strike:
    """Push more items while the Job runs."""
    late = ("late", "later")
    queue.connect(scene.ground.cluster.kube).rpush(queue.QUEUE, *late)
    return Strike(f"pushed {' and '.join(late)}", late=late)


def _item(line: LogLine) -> str:
    found = WORKING.fullmatch(line.text)
    return found["item"] if found else ""


SCENARIOS = (
    Scenario(
        "pod-deleted",
        "the Job replaces the pod, and every item is completed once",
        delete_pod,
    ),
    Scenario(
        "worker-killed",
        "the kubelet restarts the container, and every item is completed once",
        kill_worker,
    ),
    Scenario("late-items", "items pushed while the Job runs are completed once, too", push_late),
    Scenario("empty-queue", "a Job on an empty queue ends at once and well: 0 of 0", items=()),
)


def select(names: Sequence[str]) -> tuple[Scenario, ...]:
    """The scenarios of these names, or all.

    Raises:
        UsageFailure: there is none of that name.
    """
    known = {scenario.name: scenario for scenario in SCENARIOS}
    for name in names:
        if name not in known:
            raise UsageFailure(f"there is no scenario {name}; there are {', '.join(known)}.")
    return tuple(known[name] for name in names) or SCENARIOS


def run(
    scenarios: Sequence[Scenario],
    settings: Settings,
    emit: Emit,
    cancellation: process.Cancellation,
) -> list[Outcome]:
    """Run scenarios one after the other on one cluster.

    Raises:
        HarnessError: the cluster did not come up.
        Interrupted: a signal ended it.
    """
    with ExitStack() as made:
        try:
            ground = tutorial.lay_ground(settings, made, emit, cancellation)
            settings = replace(settings, timeout=JOB_SECONDS)
            return [play(scenario, settings, ground, emit) for scenario in scenarios]
        except BaseException:
            cancellation.cancel()
            raise


def play(
    scenario: Scenario,
    settings: Settings,
    ground: Ground,
    emit: Emit,
    worker: WorkerImage | None = None,
) -> Outcome:
    """Run one scenario on a cluster, and take its objects away afterwards.

    Args:
        scenario: what to break.
        settings: of the Job: its parallelism, and the time that it may take.
        ground: the cluster.
        emit: told of the progress.
        worker: another worker image than the ground's.
    """
    documents = tutorial.prepare(settings)
    image = worker or ground.worker
    verdict, failure = None, ""
    with tutorial.stage(emit, scenario.name, f"{scenario.name}: {scenario.must_hold}"):
        try:
            tutorial.start_redis(ground, documents.redis(ground.redis_image), emit)
            client = queue.connect(ground.cluster.kube)
            queue.wait_until_answering(client)
            queue.seed(client, scenario.items, emit)
            tutorial.apply(ground.cluster, documents.job(image.reference), emit)
            verdict = _watch(scenario, ground, Monitor(client), settings.timeout, emit)
            emit(VerdictReached(verdict))
        except HarnessError as error:
            failure = str(error)
            emit(Progress(scenario.name, failure))
        finally:
            with signals.shield():
                tutorial.remove_objects(ground.cluster)
    return Outcome(scenario, verdict, failure)


@dataclass
class _Moment:
    """Strikes once, in a thread of its own, when a pod starts its second item."""

    scenario: Scenario
    ground: Ground
    emit: Emit
    begun: dict[str, int] = field(default_factory=dict)
    thread: threading.Thread | None = None
    done: Strike = field(default_factory=lambda: Strike("nothing was struck"))
    failure: HarnessError | None = None

    def see(self, line: LogLine) -> None:
        """Take in a line of a pod."""
        if self.scenario.strike is None or self.thread or not _item(line):
            return
        self.begun[line.pod] = self.begun.get(line.pod, 0) + 1
        if self.begun[line.pod] == 2:
            scene = Scene(self.ground, line)
            self.thread = threading.Thread(target=partial(self._strike, scene), daemon=True)
            self.thread.start()

    def _strike(self, scene: Scene) -> None:
        try:
            if self.scenario.strike:
                self.done = self.scenario.strike(scene)
            self.emit(Struck(self.scenario.name, self.done.text))
        except subprocess.CalledProcessError as error:
            self.failure = ClusterFailure(f"the strike failed: {error}; run it again.")
        except HarnessError as error:
            self.failure = error

    def end(self) -> Strike:
        """What was done.

        Raises:
            TutorialFailure: the Job ended before the moment came.
            HarnessError: the strike failed.
        """
        if self.scenario.strike is None:
            return Strike("nothing to break")
        if self.thread is None:
            raise TutorialFailure("the Job ended before a pod started its second item.")
        self.thread.join(STRIKE_SECONDS)
        if self.failure:
            raise self.failure
        return self.done


def _watch(
    scenario: Scenario, ground: Ground, monitor: Monitor, seconds: float, emit: Emit
) -> Verdict:
    moment = _Moment(scenario, ground, emit)
    cluster = ground.cluster
    ran = job.watch(cluster.kubeconfig_path, emit=emit, seconds=seconds, on_line=moment.see)
    struck = moment.end()
    completed = completions(queue.QUEUE, monitor.close())
    return judge(
        seeded=[*scenario.items, *struck.late],
        lines=ran.lines,
        pods=ran.pods,
        job=ran.job,
        queue=queue.inspect(queue.connect(cluster.kube)),
        completed=[completion.item for completion in completed],
        fault=struck.fault,
    )
