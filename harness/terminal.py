"""What a person sees in the terminal: the run's events as lines, or as a walkthrough."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness import events
from harness.verdict import CLOSING, WORKING, clock


class Terminal(Console):
    """rich's console, but one whose end is no end of the run: the clean-up must still happen."""

    def on_broken_pipe(self) -> None:
        """Nobody reads any more, as in ``make e2e | head``: fall silent."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


class Lines:
    """One line for each event worth telling; also right in a CI log."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def __call__(self, event: events.Event) -> None:
        """Print what there is to say of an event."""
        if line := told(event):
            self.console.print(line, highlight=False, soft_wrap=True)


def told(event: events.Event) -> str | None:
    """A line for an event in rich's markup; None where a person needs none."""
    match event:
        case events.StageStarted(title=title, command=command):
            shown = f"\n    [dim]$ {escape(command)}[/]" if command else ""
            return f"[bold]==> {escape(title)}[/]{shown}"
        case events.StageFinished(seconds=seconds):
            return f"    [green]done[/] in {seconds:.1f} s"
        case events.Progress(text=text):
            return f"    {escape(text)}"
        case events.ManifestDiffers():
            return f"    [yellow]not as the document:[/] {escape(str(event))}"
        case events.ImageObtained(name=name, reference=reference, source=source):
            return f"    image {name}: {escape(reference.partition('@')[0])}, from {source}"
        case events.ItemSeeded(item=item, length=length):
            return f"    rpush {escape(item)} -> {length}"
        case events.PodChanged(pod=pod, node=node, state=state):
            return f"    {pod} {state}" + (f" on {node}" if node else "")
        case events.LogLine(pod=pod, text=text, at=at):
            return f"    {clock(at)} [cyan]{pod}[/] {escape(text)}"
        case events.Struck(text=text):
            return f"    [bold magenta]{escape(text)}[/]"
        case events.JobEnded(seconds=seconds, ideal=ideal):
            return f"    the Job took {seconds:.1f} s; its workers sleep for {ideal:.0f} s of it"
        case events.VerdictReached(verdict=verdict):
            colour = "green" if verdict.holds else "red"
            said = [str(verdict)] if verdict.holds else [f.text for f in verdict.findings]
            if not verdict.holds:
                said.insert(0, f"{verdict.once} of {verdict.seeded} items exactly once")
            return "\n".join(f"    [bold {colour}]{escape(line)}[/]" for line in said)
    return None


@dataclass
class Walkthrough:
    """The demo: lines, and while the Job runs a live view of who works on what."""

    console: Console
    items: int
    pods: dict[str, list[str]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    waiting: int | None = None
    started: float = 0.0
    live: Live | None = None

    def __call__(self, event: events.Event) -> None:
        """Take in an event and show it."""
        match event:
            case events.StageStarted(stage="job"):
                self._tell(event)
                self.started = time.monotonic()
                self.live = Live(
                    get_renderable=self.view, console=self.console, refresh_per_second=4
                )
                self.live.start()
            case events.PodChanged(pod=pod, state=state):
                self.pods.setdefault(pod, [])
                self.states[pod] = state
            case events.LogLine(pod=pod, text=text):
                if found := WORKING.fullmatch(text):
                    self.pods.setdefault(pod, []).append(found["item"])
                elif text == CLOSING:
                    self.states[pod] = "done"
            case events.QueueObserved(waiting=waiting):
                self.waiting = waiting
            case events.JobEnded():
                self.close()
                self._tell(event)
            case _:
                self._tell(event)

    def close(self) -> None:
        """End the live view, also when the Job did not end well."""
        if self.live:
            self.live.stop()
            self.live = None

    def view(self) -> RenderableType:
        """The live view: a row for each pod, the queue's length, the time."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 4))
        for title in ("pod", "works on", "has done"):
            table.add_column(title, overflow="fold")
        for pod, items in self.pods.items():
            done = self.states.get(pod) == "done"
            now = "-" if done or not items else items[-1]
            before = items if done else items[:-1]
            table.add_row(pod, Text(now, style="bold"), Text(" ".join(before)))
        started = sum(len(items) for items in self.pods.values())
        waiting = self.items - started if self.waiting is None else self.waiting
        elapsed = time.monotonic() - self.started
        return Group(table, f"    waiting in job2: {waiting} of {self.items}; {elapsed:.0f} s")

    def _tell(self, event: events.Event) -> None:
        if line := told(event):
            self.console.print(line, highlight=False, soft_wrap=True)
