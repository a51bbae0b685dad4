"""The command line: ``python -m harness``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from docker.errors import DockerException
from rich.markup import escape
from rich.table import Table

from harness import cluster as clusters
from harness import doctor as doctors
from harness import engine, process, queue, reports, signals, tutorial
from harness import faults as fault_scenarios
from harness.errors import (
    EnvironmentFailure,
    HarnessError,
    Interrupted,
    TutorialFailure,
    UsageFailure,
)
from harness.events import Recorder, RunFailed
from harness.settings import (
    DOCUMENT_PARALLELISM,
    DOCUMENT_SLEEP,
    DOCUMENT_TIMEOUT,
    DOCUMENT_WORKERS,
    Settings,
)
from harness.terminal import Lines, Terminal, Walkthrough

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 clean, 2 usage, 3 environment, 4 cluster, 5 tutorial, "
    "128 + signal when interrupted.",
)

Name = Annotated[str | None, typer.Option(help="Name of the cluster; unique by default.")]
Items = Annotated[
    Path | None,
    typer.Option(help="File of items, one a line, or a JSON list; the document's nine."),
]
Parallelism = Annotated[int, typer.Option(help="Pods that work at the same time.")]
Nodes = Annotated[int, typer.Option(help="Worker nodes, besides the control plane.")]
Sleep = Annotated[
    float, typer.Option(help="Seconds that the worker sleeps for an item; 10 in the document.")
]
Timeout = Annotated[float, typer.Option(help="Seconds that the Job may take.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the cluster there afterwards.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the reports; out/ by default.")]
Manifests = Annotated[Path | None, typer.Option(help="Folder of the manifests.", hidden=True)]


@app.command()
def run(
    name: Name = None,
    items: Items = None,
    parallelism: Parallelism = DOCUMENT_PARALLELISM,
    nodes: Nodes = DOCUMENT_WORKERS,
    sleep: Sleep = DOCUMENT_SLEEP,
    timeout: Timeout = DOCUMENT_TIMEOUT,
    keep: Keep = False,
    out: Out = None,
    manifests: Manifests = None,
) -> None:
    """Run the tutorial on a cluster of its own and judge it."""
    settings = _settings(
        name=name,
        items=items,
        parallelism=parallelism,
        workers=nodes,
        sleep=sleep,
        timeout=timeout,
        keep=keep,
        out=out,
        manifests=manifests,
    )
    _run(settings, Lines(Terminal()))


@app.command()
def demo(
    name: Name = None,
    items: Items = None,
    parallelism: Parallelism = DOCUMENT_PARALLELISM,
    nodes: Nodes = DOCUMENT_WORKERS,
    sleep: Sleep = DOCUMENT_SLEEP,
    timeout: Timeout = DOCUMENT_TIMEOUT,
    keep: Keep = False,
    out: Out = None,
) -> None:
    """Run it as a walkthrough: each step with the document's command, and a live view."""
    settings = _settings(
        name=name,
        items=items,
        parallelism=parallelism,
        workers=nodes,
        sleep=sleep,
        timeout=timeout,
        keep=keep,
        out=out,
    )
    console = Terminal()
    if not console.is_terminal:
        return _run(settings, Lines(console))
    walkthrough = Walkthrough(console, len(settings.items))
    try:
        return _run(settings, walkthrough)
    finally:
        walkthrough.close()


def _settings(*, items: Path | None = None, **given: Any) -> Settings:
    """Settings of what was given; what is None has its default."""
    if items:
        given["items"] = queue.read_items(items)
    return Settings(**{key: value for key, value in given.items() if value is not None})


def _run(settings: Settings, view: Callable[..., None]) -> None:
    recorder = Recorder(view)
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageFailure(
            f"--out {settings.out} can't be made ({error.strerror}); choose another folder."
        ) from None
    try:
        verdict = tutorial.run(settings, recorder, process.Cancellation())
    except HarnessError as error:
        recorder(RunFailed(error.kind, error.exit_code, str(error)))
        raise
    except Interrupted as interruption:
        recorder(RunFailed("interrupted", interruption.exit_code, "the run was interrupted."))
        raise
    finally:
        reports.write(settings.out, recorder.events, settings.items)
    if not verdict.holds:
        raise typer.Exit(TutorialFailure.exit_code)


@app.command()
def faults(
    names: Annotated[list[str] | None, typer.Argument(help="Scenarios; all by default.")] = None,
    name: Name = None,
    keep: Keep = False,
    out: Out = None,
) -> None:
    """Break pods in the middle of a run, and judge whether every item was completed once."""
    scenarios = fault_scenarios.select(names or [])
    settings = _settings(name=name, keep=keep, out=out)
    console = Terminal()
    outcomes = fault_scenarios.run(
        scenarios, settings, Recorder(Lines(console)), process.Cancellation()
    )
    table = Table("", "scenario", "what must hold", "what held", box=None)
    for outcome in outcomes:
        mark = "[green]ok[/]" if outcome.holds else "[red]no[/]"
        held = str(outcome.verdict) if outcome.verdict else outcome.failure
        table.add_row(mark, outcome.scenario.name, outcome.scenario.must_hold, escape(held))
    console.print(table)
    if not all(outcome.holds for outcome in outcomes):
        raise typer.Exit(TutorialFailure.exit_code)


@app.command()
def up(name: Name = None, nodes: Nodes = DOCUMENT_WORKERS) -> None:
    """Create a cluster with the images in it, and keep it."""
    settings = _settings(name=name, workers=nodes, keep=True)
    tutorial.up(settings, Recorder(Lines(Terminal())), process.Cancellation())


@app.command()
def down(
    name: Name = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every cluster of the harness.")
    ] = False,
    engine_too: Annotated[
        bool, typer.Option("--engine", help="Also stop the engine that the harness started.")
    ] = False,
) -> None:
    """Delete clusters that the harness made, and only those."""
    if not (name or everything or engine_too):
        raise UsageFailure("say what to delete: --name NAME or --all.")
    console = Terminal()
    docker = engine.find()
    if docker is None and name:
        raise EnvironmentFailure("no Docker engine answers; start it to delete clusters in it.")
    if docker is not None:
        names = [found.name for found in clusters.find_all(docker)] if everything else []
        for one in [name] if name else names:
            clusters.delete(docker, one)
            console.print(f"deleted {one}")
    if engine_too and (pid := engine.stop()):
        console.print(f"stopped dockerd (process {pid})")


@app.command()
def status() -> None:
    """List the clusters that the harness made."""
    docker = engine.find()
    found = clusters.find_all(docker) if docker else []
    table = Table("cluster", "state", "nodes", "kubeconfig", box=None)
    for one in found:
        state = "kept" if one.kept else "in use" if one.running else "left by a killed run"
        kubeconfig = str(clusters.folder(one.name) / "kubeconfig")
        table.add_row(one.name, state, str(len(one.nodes)), kubeconfig)
    Terminal(soft_wrap=True).print(table if found else "no clusters")


@app.command()
def doctor() -> None:
    """Print each prerequisite: what is found, its version, and what to do."""
    checks = doctors.examine()
    table = Table("", "prerequisite", "found", "what to do", box=None)
    for check in checks:
        mark = "[green]ok[/]" if check.ok else "[red]no[/]"
        table.add_row(mark, check.name, check.found, check.remedy)
    Terminal().print(table)
    if not all(check.ok for check in checks):
        raise typer.Exit(EnvironmentFailure.exit_code)


@app.command(hidden=True)
def install(programs: list[str]) -> None:
    """Install the Debian packages of programs that are not on PATH; the tests' own need."""
    missing = tuple(program for program in programs if not shutil.which(program))
    if missing:
        engine.apt_install(missing, Terminal().print)


def main() -> None:
    """Run the command line; every failure is one sentence and a documented exit code."""
    signals.install()
    errors = Terminal(stderr=True, soft_wrap=True, highlight=False)
    try:
        app(standalone_mode=True)
    except HarnessError as error:
        errors.print(f"[red]{error.kind} failure:[/] ", end="")
        errors.print(str(error), markup=False)
        sys.exit(error.exit_code)
    except DockerException as error:
        errors.print("[red]environment failure:[/] ", end="")
        errors.print(f"the Docker engine failed ({error}); see `make doctor`.", markup=False)
        sys.exit(EnvironmentFailure.exit_code)
    except Interrupted as interruption:
        errors.print("interrupted; the clean-up is done")
        sys.exit(interruption.exit_code)
