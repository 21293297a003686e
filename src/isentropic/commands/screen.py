"""What a person sees in the terminal: plain lines,
and a progress bar where there is a terminal to draw it in."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from isentropic.text import never_fail, visible


class Screen:
    """Lines and progress bars, on a terminal or in a file; silent where ``quiet``.

    Args:
        quiet: say nothing (the other processes of a distributed run).
        console: where to print; the standard output if not given.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        never_fail(sys.stdout)
        self.console = console or Console(
            highlight=False, soft_wrap=True, emoji=False, markup=False, quiet=quiet
        )
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        self.console.print(visible(line))

    @contextlib.contextmanager
    def live(self) -> Iterator[Screen]:
        """Draw the bars while the block runs."""
        with self.progress:
            yield self

    def bar(self, stage: str, total: int | None = None) -> ProgressBar:
        """A bar named ``stage``; it goes away when it is full."""
        if stage not in self.tasks:
            self.tasks[stage] = self.progress.add_task(stage, total=total)
            if not self.console.is_terminal and not self.console.quiet:
                self.say(f"{stage} ...")
        return ProgressBar(self, stage)


class ProgressBar:
    """Call it with (done, total)."""

    def __init__(self, screen: Screen, stage: str) -> None:
        self.screen, self.stage = screen, stage

    def __call__(self, done: int, total: int) -> None:
        task = self.screen.tasks.get(self.stage)
        if task is None:
            return
        self.screen.progress.update(task, completed=done, total=total)
        if done >= total:
            self.screen.progress.remove_task(task)
            del self.screen.tasks[self.stage]
