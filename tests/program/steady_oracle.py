"""The steady state of a program by loops over ticks: what schedules laid out phase by phase are held against."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from queue_oracle import needs_of

from aimc_compiler.program import Program

Starts = dict[tuple[int, int, int], int]


@dataclass
class Board:
    """Which ticks of a resource's period are taken."""

    period: int
    taken: np.ndarray

    def first(self, ready: int, service: int) -> int:
        """The first time from ``ready`` on at which an event fits; -1 for none."""
        for time in range(ready, ready + self.period):
            ticks = np.arange(time, time + service) % self.period
            if service <= self.period and not self.taken[ticks].any():
                return time
        return -1

    def take(self, time: int, service: int) -> None:
        self.taken[np.arange(time, time + service) % self.period] = True


def board(period: int) -> Board:
    return Board(period=period, taken=np.zeros(period, dtype=bool))


def steady_starts(program: Program, interval: int) -> Starts:
    """Starts of the steady state: resources that are in use for more than half of the interval are placed first, with
    all others free, to see on which of them gaps are too short.
    """
    loads = [load_of(program, on) for on in range(len(program.resources))]
    crowded: set[int] = set()
    for placed in ({on for on, load in enumerate(loads) if 2 * load > interval}, set(range(len(loads)))):
        while True:
            laid = SteadyByTick(program, interval, placed, crowded)
            crowded |= laid.missing
            if not laid.missing:
                break
    return laid.found


class SteadyByTick:
    """Places in the interval, event by event, where gaps are looked for on all but the crowded resources, and those
    that are not ``placed`` are free. found, late: starts, and as others see them; missing: where gaps were too short.
    """

    def __init__(self, program: Program, interval: int, placed: set[int], crowded: set[int]) -> None:
        self.program, self.interval, self.placed = program, interval, placed
        self.boards = [board(interval) for _ in program.resources]
        self.cursor = dict.fromkeys(crowded, 0)
        self.found: Starts = {}
        self.late: Starts = {}
        self.pace: list[int] = []
        self.grids = [grid_of(program, on, interval) for on in range(len(program.resources))]
        self.origin: dict[int, int] = {}
        self.missing: set[int] = set()
        self.behind = followers(program)
        for number in range(len(program.tasks)):
            self.pace.append(self._pace(number))
            for use in range(max(1, len(program.tasks[number].uses))):
                self._lay(number, use)

    def _pace(self, number: int) -> int:
        task, tasks = self.program.tasks[number], self.program.tasks
        makers = [(tasks[need.task].events, self.pace[need.task], need.access.kind) for need in task.needs]
        paces = [made * step // task.events for made, step, kind in makers if kind != "all"]
        return task.service_ticks if task.uses else max([0, *paces])

    def _lay(self, number: int, use: int) -> None:
        task, step = self.program.tasks[number], self.pace[number]
        on = task.uses[use][0] if task.uses else -1
        if on in self.behind:
            for window in range(task.events):
                for times in (self.found, self.late):
                    times[number, use, window] = times[number, task.uses[use][1], window] + task.hop_ticks
            return
        line = self._line(number, use)
        placed = self._place(on, line, task.events, step) if on in self.placed and step else []
        starts = placed or [line + window * step for window in range(task.events)]
        for window in range(task.events):
            self.found[number, use, window] = starts[window]
            self.late[number, use, window] = starts[-1] - (task.events - 1 - window) * step

    def _line(self, number: int, use: int) -> int:
        """When event 0 is ready, if event k follows ``k`` paces later."""
        line = 0
        for window in range(self.program.tasks[number].events):
            for need, delay in needs_of(self.program, number, use, window):
                if need[:2] != (number, use):
                    line = max(line, self.late[need] + delay - window * self.pace[number])
        return line

    def _place(self, on: int, line: int, events: int, step: int) -> list[int]:
        if on not in self.cursor:
            line += (self.origin.get(on, line) - line) % self.grids[on]
        starts = place_back_to_back(self.boards, self.cursor, on, line, events, step, self.interval)
        if starts:
            self.origin.setdefault(on, starts[0])
        else:
            self.missing.add(on)
        return starts


def followers(program: Program) -> set[int]:
    """Resources entered from one other alone, always as many ticks behind it: what comes off it finds them free."""
    entered: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for task in program.tasks:
        for on, before in task.uses:
            entered[on].append((task.uses[before][0] if before >= 0 else -1, task.hop_ticks))
    return {on for on, ways in entered.items() if len(set(ways)) == 1 and ways[0][0] >= 0}


def load_of(program: Program, on: int) -> int:
    return sum(task.events * task.service_ticks for task in program.tasks if on in dict(task.uses))


def grid_of(program: Program, on: int, interval: int) -> int:
    """The length of events on a resource, where all are equal and fill the interval; else 1."""
    users = [task for task in program.tasks for resource, _ in task.uses if resource == on]
    full = load_of(program, on) == interval
    lengths = {task.service_ticks for task in users}
    return lengths.pop() if full and len(lengths) == 1 else 1


def place_back_to_back(
    boards: list[Board], cursor: dict[int, int], on: int, ready: int, events: int, service: int, interval: int
) -> list[int]:
    if on in cursor:
        first = ready + (cursor[on] - ready) % interval
        cursor[on] += events * service
        return [first + window * service for window in range(events)]
    starts: list[int] = []
    for _ in range(events):
        start = boards[on].first(ready, service)
        if start < 0:
            return []
        boards[on].take(start, service)
        starts.append(start)
        ready = start + service
    return starts
