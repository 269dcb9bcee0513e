"""Layers of aihwkit and aihwkit-lightning next to torch and ours, in one run, where those packages are installed.

    OMP_NUM_THREADS=1 python benchmarks/bench_toolkits.py [--threads N] [--repeats N]

They do not compute the same: each line says which effects it has. Ratios are medians of the ratios to plain torch of
neighbouring runs. Threads outside torch follow OMP_NUM_THREADS, so set it to the same number.
"""

import argparse
import os
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from statistics import median

import torch
from bench_exact_mvm import convolution, linear
from bench_fast_mvm import HOUR_S, Run, compare, lstm
from torch import Tensor, nn

from aimc_compiler.chip import load_chip
from aimc_compiler.study.interchange import rpu_config_of, unusable_because

STANDARD = "all effects"
CONVERTERS = "clipping and converters"
LEGEND = f"""{STANDARD}: range clipping, converters, IR drop, read and output noise, devices aged by 1 h and compensated
{CONVERTERS}: of weights as trained, without noise and IR drop but for what is added after a comma"""
CONVERTER_STEPS, OUT_BOUND = 254.0, 10.0


def main() -> None:
    """One table a case: plain torch, ours, and what of the toolkits is here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    missing = tuple(missing_toolkits())
    for line in missing:
        print(line)
    if len(missing) == 2:
        return
    print(f"torch {torch.__version__}, {options.threads} thread(s), load {os.getloadavg()[0]:.1f}")
    print(LEGEND)
    torch.manual_seed(0)
    uniform = torch.rand(4096, 1024) * 2 - 1
    cases = (
        (linear(512, 128), nn.Linear(512, 512, bias=False), uniform[:128, :512].contiguous()),
        (linear(1024, 4096), nn.Linear(1024, 1024, bias=False), uniform),
        (convolution(), nn.Conv2d(64, 64, 3, padding=1, bias=False), torch.rand(32, 64, 32, 32)),
    )
    for (name, plain, chip), layer, x in cases:
        ours = ((OURS_FAST, chip("fast")), (OURS_EXACT, chip("exact")))
        show(name, plain, (*ours, *toolkits(layer, x)), options.repeats)
    plain, fast, exact = lstm()
    theirs = toolkits(nn.LSTM(128, 128, batch_first=True), torch.rand(32, 32, 128) * 2 - 1)
    ours = ((OURS_FAST, fast), (f"{OURS_EXACT}, a step at a time", exact))
    show("LSTM 128 units, 32 steps, batch 32", plain, (*ours, *theirs), options.repeats)


OURS_FAST, OURS_EXACT = (f"ours, {precision}: {STANDARD}" for precision in ("fast", "exact"))
Contender = tuple[str, Run]


def missing_toolkits() -> Iterator[str]:
    """One line for each toolkit that cannot be timed here."""
    reason = unusable_because()
    if reason is not None:
        yield f"{reason}: not timed"
    if find_spec("aihwkit_lightning") is None:
        yield "aihwkit-lightning is not installed: not timed"


def show(name: str, plain: Run, contenders: tuple[Contender, ...], repeats: int) -> None:
    """Microseconds of torch, and each contender's ratio to it, all run in turn."""
    base, *others = compare((plain, *(run for _, run in contenders)), repeats)
    print(f"\n{name}: torch {median(base) * 1e6:.0f} us")
    for (label, _), seconds in zip(contenders, others, strict=True):
        print(f"{median(b / a for a, b in zip(base, seconds, strict=True)):>9.2f}  {label}")


def toolkits(layer: nn.Module, x: Tensor) -> tuple[Contender, ...]:
    """The same layer, by each toolkit that is here."""
    found: list[Contender] = []
    if unusable_because() is None:
        found += [standard_preset(layer, x), torch_tile(layer, x)]
    if find_spec("aihwkit_lightning") is not None:
        found += [lightning(layer, x, noisy=False), lightning(layer, x, noisy=True)]
    return tuple(found)


def standard_preset(layer: nn.Module, x: Tensor) -> Contender:
    """The inference tile of aihwkit, in C++, with its standard preset, one hour after programming."""
    twin = aihwkit_layer(layer, rpu_config_of(load_chip("aihwkit")))
    return f"aihwkit {version('aihwkit')}, StandardHWATrainingPreset: {STANDARD}", aged(twin, x)


def torch_tile(layer: nn.Module, x: Tensor) -> Contender:
    """The tile of aihwkit that is written in torch, with what it has of the preset."""
    from aihwkit.simulator.configs import TorchInferenceRPUConfig
    from aihwkit.simulator.parameters.enums import WeightNoiseType

    preset = rpu_config_of(load_chip("aihwkit"))
    preset.forward.ir_drop, preset.forward.w_noise = 0.0, 0.0
    preset.forward.w_noise_type = WeightNoiseType.NONE
    parts = ("mapping", "forward", "noise_model", "drift_compensation", "pre_post")
    config = TorchInferenceRPUConfig(**{part: getattr(preset, part) for part in parts})
    effects = f"{CONVERTERS}, output noise, devices aged by 1 h and compensated"
    return f"aihwkit {version('aihwkit')}, torch tile: {effects}", aged(aihwkit_layer(layer, config), x)


def aihwkit_layer(layer: nn.Module, config: object) -> nn.Module:
    """The layer in aihwkit, with input ranges of 1. Of an LSTM one with the same sizes."""
    from aihwkit.nn import AnalogRNN
    from aihwkit.nn.conversion import convert_to_analog
    from aihwkit.nn.modules.rnn.cells import AnalogLSTMCell

    config.pre_post.input_range.init_value = 1.0  # type: ignore[attr-defined]
    if isinstance(layer, nn.LSTM):
        twin = AnalogRNN(AnalogLSTMCell, layer.input_size, layer.hidden_size, rpu_config=config)
    else:
        twin = convert_to_analog(layer, config)
    return twin.eval()


def aged(twin: nn.Module, x: Tensor) -> Run:
    """Programmed, and one hour old."""
    twin.program_analog_weights()
    twin.drift_analog_weights(HOUR_S)
    given = x.transpose(0, 1).contiguous() if recurrent(twin) else x
    return lambda: twin(given)


def lightning(layer: nn.Module, x: Tensor, *, noisy: bool) -> Contender:
    """aihwkit-lightning, whose noise is for training: its evaluation has converters alone."""
    from aihwkit_lightning.nn import AnalogRNN
    from aihwkit_lightning.nn.conversion import convert_to_analog
    from aihwkit_lightning.nn.modules.rnn.cells import AnalogLSTMCell
    from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig, WeightNoiseInjectionType

    config = TorchInferenceRPUConfig()
    config.mapping.max_input_size = 512
    config.forward.inp_res = config.forward.out_res = CONVERTER_STEPS
    config.forward.out_bound, config.forward.out_noise = OUT_BOUND, 0.04
    input_range = config.pre_post.input_range
    input_range.enable, input_range.init_value, input_range.init_from_data = True, 1.0, 0
    config.modifier.noise_type, config.modifier.std_dev = WeightNoiseInjectionType.ADD_NORMAL_PER_CHANNEL, 0.0175
    if isinstance(layer, nn.LSTM):
        twin = AnalogRNN(AnalogLSTMCell, layer.input_size, layer.hidden_size, rpu_config=config)
    else:
        twin = convert_to_analog(layer, config)
    twin.train(noisy)
    given = x.transpose(0, 1).contiguous() if recurrent(twin) else x
    effects = f"{CONVERTERS}, output noise, the same normal weight noise for all samples" if noisy else CONVERTERS
    mode = "training" if noisy else "evaluation"
    return f"aihwkit-lightning {version('aihwkit-lightning')}, {mode}: {effects}", lambda: twin(given)


def recurrent(twin: nn.Module) -> bool:
    """Whether it takes steps first."""
    return type(twin).__name__ == "AnalogRNN"


if __name__ == "__main__":
    main()
