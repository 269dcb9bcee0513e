"""A process that runs cells: a task a line of JSON on standard input, an answer a line on standard output.

It starts as a new interpreter, so it holds nothing of its driver, and scripts need no guard around their main code. It
ends when its input ends: a driver that is killed leaves nobody behind.
"""

import json
import os
import queue
import signal
import sys
import threading
from typing import IO

import torch

from aimc_compiler.study.sweep.cell import answer


def main() -> None:
    """Answer tasks until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver says when to stop
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the user's code prints is no answer
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, tasks), daemon=True).start()
    _say(answers, {"ready": True})
    while True:
        _say(answers, answer(json.loads(tasks.get())))


def _listen(stream: IO[str], tasks: "queue.SimpleQueue[str]") -> None:
    for line in stream:
        tasks.put(line)
    os._exit(0)  # in the midst of a cell, too


def _say(answers: IO[str], message: dict[str, object]) -> None:
    try:
        answers.write(json.dumps(message) + "\n")
        answers.flush()
    except BrokenPipeError:
        os._exit(0)
