"""Words for the person at the terminal: on stderr, so that stdout holds results alone."""

import sys
from collections.abc import Callable


def say(text: str) -> None:
    """One line, signed."""
    print(f"sparse3d: {text}", file=sys.stderr)


class Bar:
    """A progress bar on a terminal, a line every tenth part elsewhere; made when it is first reported to."""

    def __init__(self, what: str):
        self.what = what
        self._progress = self._task = None
        self._tenth = -1

    def __enter__(self) -> Callable[[int, int], None]:
        return self._report

    def __exit__(self, *error: object) -> None:
        self._stop()

    def _report(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            if self._progress is None:
                self._progress = Progress(console=Console(stderr=True))
                self._progress.start()
                self._task = self._progress.add_task(self.what, total=total)
            assert self._task is not None
            self._progress.update(self._task, completed=done)
        elif 10 * done // total > self._tenth:
            self._tenth = 10 * done // total
            say(f"{self.what}: {done} of {total}")
        if done >= total:  # the training that follows has a bar of its own
            self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class Stages:
    """A Bar for each stage of work that reports (stage, done, total), one after the other."""

    def __init__(self):
        self._bar: tuple[str, Bar] | None = None

    def __enter__(self) -> Callable[[str, int, int], None]:
        return self._report

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar[1].__exit__()

    def _report(self, stage: str, done: int, total: int) -> None:
        if self._bar is None or self._bar[0] != stage:
            self.__exit__()
            self._bar = stage, Bar(stage)
        self._bar[1].__enter__()(done, total)
