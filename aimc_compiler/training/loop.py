"""The training loop: a network prepared for a chip learns a task, and goes on after a stop as if there had been none.

Every random draw follows from the seed and the number of the step: before a batch is fetched and before it is computed
torch's generator is seeded anew, by names (``aimc_compiler.rng``). A checkpoint therefore holds no generator, and a run
that is resumed from any of its checkpoints ends, on a processor, with the bytes of one that was never stopped.
"""

import copy
import dataclasses
import hashlib
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from aimc_compiler.chip import ChipSpec, dump_yaml, load_chip
from aimc_compiler.errors import TrainingError
from aimc_compiler.executor import as_call
from aimc_compiler.files import whole_file
from aimc_compiler.records import record
from aimc_compiler.rng import stream_key
from aimc_compiler.training.aware import HardwareAware, hold_weights
from aimc_compiler.training.checkpoint import load_checkpoint, save_checkpoint
from aimc_compiler.training.distillation import distillation_loss
from aimc_compiler.training.groups import parameter_groups
from aimc_compiler.training.layers import matrices_of
from aimc_compiler.training.norms import restate_norms
from aimc_compiler.training.prepare import prepare_hwa
from aimc_compiler.training.programmed import on_chip
from aimc_compiler.training.recipe import Recipe
from aimc_compiler.training.task import Data, Task

#: Batches by which norms that were frozen are restated.
RESTATED = 50
#: The largest norm of all gradients together while batch norms are frozen, where the task has none.
FROZEN_GRADIENT = 1.0
CHECKPOINT, WEIGHTS = "checkpoint.aimct", "weights.safetensors"


@record
class EpochResult:
    """epoch: from 1; loss: mean over its mini-batches; rate: learning rate of the first group at its end; float_metric:
    of the plain network on the validation data; chip_metrics: of each programmed chip; seconds: of training and
    measuring, in this process."""

    epoch: int
    loss: float
    rate: float
    float_metric: float
    chip_metrics: tuple[float, ...]
    seconds: float


@record
class Trained:
    """model: the prepared network in evaluation mode, for ``compile``; epochs: how it went; steps: mini-batches."""

    model: Any
    epochs: tuple[EpochResult, ...]
    steps: int


def train(
    task: Task,
    chip: ChipSpec | str | Path,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    resume: bool = False,
    every: int | None = None,
    chips: int = 1,
    time_s: float | None = None,
    report: Callable[[EpochResult], None] | None = None,
) -> Trained:
    """Train ``task`` for ``chip`` by ``recipe`` (as of ``prepare_hwa``).

    out: a folder for ``checkpoint.aimct``, written after each epoch and every ``every`` steps, and, at the end,
    ``weights.safetensors``, the state dict of the prepared network; None: nothing is written. seed: of every draw.
    resume: go on from the checkpoint in ``out``, or begin where there is none yet. chips: how many are programmed to
    measure each epoch, at ``time_s`` seconds after programming (None: the first time of the chip's evaluation), read
    for drift compensation then. report: called after each epoch.

    Raises TrainingError, RecipeError, RuleError; where the checkpoint belongs to another run, what differs.

    Example:
        >>> trained = train(task, "analog-fabric", {"clip_sigmas": 2.5}, out="run")  # doctest: +SKIP
        >>> compiled = aimc.compile(trained.model, "analog-fabric", (x,))  # doctest: +SKIP
    """
    spec = chip if isinstance(chip, ChipSpec) else load_chip(chip)
    folder = _folder(out, resume)
    if (every is not None and every < 1) or chips < 0:
        raise TrainingError(f"every is {every} and chips {chips}: give 1 step or more, and 0 chips or more")
    with _generators_kept():
        run = _Run(task, spec, Recipe.of(recipe), seed)
        run.chips, run.every = chips, every
        run.time_s = spec.evaluation.times_s[0] if time_s is None else time_s
        run.checkpoint = None if folder is None else folder / CHECKPOINT
        if resume and run.checkpoint is not None and run.checkpoint.exists():
            run.go_on(load_checkpoint(run.checkpoint))
        run.finish(report)
        run.restate()
    if folder is not None:
        _write_weights(folder / WEIGHTS, run.model)
    return Trained(model=run.model.eval(), epochs=tuple(run.history), steps=run.step)


class _Run:
    """A run of training: all that changes from step to step, and how a step changes it."""

    def __init__(self, task: Task, chip: ChipSpec, recipe: Recipe, seed: int) -> None:
        network = task.made_network(seed)
        self.task, self.recipe, self.seed = task, recipe, seed
        self.data = Data(task.train, task.batch_size, "training")
        self.validation = Data(task.validation, task.batch_size, "validation")
        self.steps = task.epochs * self.data.batches
        self.model: Any = prepare_hwa(
            network,
            chip,
            recipe,
            rules=task.rules,
            example_inputs=task.example_inputs,
            batch_dim=task.batch_dim,
            steps=self.steps,
        )
        self.teacher = copy.deepcopy(network).eval() if recipe.distillation else None
        self.optimiser = task.optimiser(parameter_groups(self.model, task.weight_decay, task.range_rate))
        self.scheduler = None if task.scheduler is None else task.scheduler(self.optimiser, self.steps)
        self.step, self.loss_sum = 0, 0.0
        self.history: list[EpochResult] = []
        self.checkpoint: Path | None = None
        self.every: int | None = None
        self.chips, self.time_s = 1, 0.0
        self.identity = self._identity(chip)

    def finish(self, report: Callable[[EpochResult], None] | None) -> None:
        """All steps that are left."""
        while len(self.history) < self.task.epochs:
            start = time.monotonic()
            self._epoch(len(self.history))
            hold_weights(self.model)
            self.history.append(self._measured(time.monotonic() - start))
            self.loss_sum = 0.0
            self._save()
            if report is not None:
                report(self.history[-1])

    def restate(self) -> None:
        """Batch norms that were frozen, by some batches of training data."""
        if self.model.hwa.frozen_from is None:
            return
        self._draw_from("norms", 0)
        batches = itertools.islice(self.data.shuffled(self.seed, self.task.epochs), RESTATED)
        restate_norms(self.model, (self._placed(inputs) for inputs, _ in batches))

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "identity": self.identity,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "history": [dataclasses.asdict(each) for each in self.history],
            "model": dict(self.model.state_dict()),
            "norms": [core.holding.state() for core in matrices_of(self.model)],
            "mini_batch": self.model.hwa.batches.number,
            "optimiser": self.optimiser.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
        }

    def go_on(self, state: dict[str, Any]) -> None:
        """From a checkpoint. Raises TrainingError where it belongs to another run."""
        for name, value in self.identity.items():
            if state["identity"].get(name) != value:
                raise TrainingError(
                    f"{self.checkpoint} belongs to a run with {name} {state['identity'].get(name)!r:.80}, this one "
                    f"has {value!r:.80}: give the same, or train into another folder"
                )
        self.step, self.loss_sum = state["step"], state["loss_sum"]
        self.history = [EpochResult(**each) for each in state["history"]]
        self.model.load_state_dict(state["model"])
        for core, norms in zip(matrices_of(self.model), state["norms"], strict=True):
            core.holding.go_on(norms)
        self.model.hwa.batches.number = state["mini_batch"]
        self.optimiser.load_state_dict(state["optimiser"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])

    def _epoch(self, epoch: int) -> None:
        """What is left of an epoch. Batches that were trained on before a stop are fetched again and passed over."""
        batches = self.data.shuffled(self.seed, epoch)
        done = self.step - epoch * self.data.batches
        for place in range(self.data.batches):
            self._draw_from("fetch", epoch * self.data.batches + place)
            batch = next(batches, None)
            if batch is None:
                raise TrainingError(
                    f"the training data gave {place} batches in epoch {epoch + 1}, and its length is "
                    f"{self.data.batches}: give data that can be gone through again"
                )
            if place >= done:
                self._train_on(*batch)
                if self.every and self.step % self.every == 0:
                    self._save()

    @property
    def _place(self) -> str:
        """Where the run is, for errors."""
        return f"step {self.step + 1} (epoch {len(self.history) + 1})"

    def _asked(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What code of the user's gives; what it raises says where it was called."""
        try:
            return function(*args, **kwargs)
        except Exception as error:
            error.add_note(f"in the {what} of the task, {self._place}")
            raise

    def _train_on(self, inputs: Any, targets: Any) -> None:
        self._draw_from("step", self.step)
        (args, kwargs), targets = self._placed(as_call(inputs)), self._placed(targets)
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        outputs = self._asked("network", self.model, *args, **kwargs)
        loss = self._asked("loss", self.task.loss, outputs, targets)
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(*args, **kwargs)
            recipe = self.recipe
            loss = distillation_loss(outputs, taught, loss, recipe.distillation, recipe.temperature)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} in {self._place}: lower the learning rate, or clip the gradient "
                "(clip_gradient of the task)"
            )
        loss.backward()
        limit, frozen_from = self.task.clip_gradient, self.model.hwa.frozen_from
        if limit is None and frozen_from is not None and self.step >= frozen_from:
            limit = FROZEN_GRADIENT
        if limit is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.optimiser.step()
        if self.scheduler is not None:
            self.scheduler.step()
        self.step += 1
        self.loss_sum += value

    def _measured(self, seconds: float) -> EpochResult:
        """The epoch that just ended, measured on the validation data. It leaves the run as it was."""
        start = time.monotonic()
        self._draw_from("validation", len(self.history))
        self.model.eval()
        with torch.no_grad():
            plain, _ = self.model.__aimc_export__()
            reference = self._score(plain.eval(), "the float network")
            found = []
            for number in range(self.chips):
                times = {"time_s": self.time_s, "recalibrated_s": self.time_s}
                with on_chip(self.model, self.seed, chip_index=number, **times):
                    found.append(self._score(self.model, f"chip_index {number}"))
        return EpochResult(
            epoch=len(self.history) + 1,
            loss=self.loss_sum / self.data.batches,
            rate=float(self.optimiser.param_groups[0]["lr"]),
            float_metric=reference,
            chip_metrics=tuple(found),
            seconds=seconds + time.monotonic() - start,
        )

    def _score(self, network: nn.Module, name: str) -> float:
        outputs, targets = [], []
        for inputs, wanted in self.validation.in_order():
            args, kwargs = self._placed(as_call(inputs))
            outputs.append(network(*args, **kwargs))
            targets.append(self._placed(wanted))
        return self.task.measured(outputs, targets, f"{name} on the validation data")

    def _placed(self, value: Any) -> Any:
        """On the device of the network."""
        device = next(self.model.parameters()).device
        return pytree.tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, value)

    def _draw_from(self, purpose: str, number: int) -> None:
        key = stream_key(self.seed, "training", purpose, number)
        torch.manual_seed(key)
        random.seed(key)

    def _save(self) -> None:
        if self.checkpoint is not None:
            save_checkpoint(self.checkpoint, self.state())

    def _identity(self, chip: ChipSpec) -> dict[str, Any]:
        """What a checkpoint must share with the run that goes on from it."""
        return {
            "network": type(self.model).__name__,
            "parameters": [[name, list(value.shape)] for name, value in self.model.named_parameters()],
            "chip": f"{chip.name} {hashlib.sha256(dump_yaml(chip).encode()).hexdigest()[:12]}",
            "recipe": self.recipe.to_json(),
            "seed": self.seed,
            "epochs": self.task.epochs,
            "batches": self.data.batches,
            "optimiser": type(self.optimiser).__name__,
            "scheduler": type(self.scheduler).__name__,
        }


@contextmanager
def _generators_kept() -> Iterator[None]:
    """The caller's generators go on afterwards as if nothing had been drawn."""
    state = random.getstate()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(state)


def _folder(out: str | Path | None, resume: bool) -> Path | None:
    """The folder of a run, made. Raises TrainingError where it holds another run already."""
    if out is None:
        if resume:
            raise TrainingError("resume needs the folder of the run: give out")
        return None
    folder = Path(out)
    if (folder / CHECKPOINT).exists() and not resume:
        raise TrainingError(f"{folder} holds a run already: resume it, or give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be made: {error.strerror}; give another folder") from error
    return folder


def _write_weights(path: Path, model: HardwareAware) -> None:
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}
    try:
        with whole_file(path, path.with_name(path.name + ".partial"), durable=False) as file:
            file.write(save_tensors(tensors))
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror}; give another folder") from error
