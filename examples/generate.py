"""Compile a decoder for its two calls, prompt and next token, onto the same tiles; generate; print the cost of a token.

python examples/generate.py
"""

from collections.abc import Callable
from typing import Any

import torch

import aimc_compiler as aimc
from aimc_compiler.zoo import GENERATORS

COUNT = 8
model, calls = GENERATORS["llama_tiny"]()  # untrained: its text is noise, its time and energy are those of its shape
entries = {name: aimc.Entry(inputs=call.inputs, method=call.method) for name, call in calls.items()}
prompts = torch.randint(256, (16, 64), generator=torch.Generator().manual_seed(1))

# Inputs of the step are caches: those that the network itself makes of the prompts.
compiled = aimc.compile(model, "analog-fabric", entries=entries)
logits, cache = compiled.float_outputs(prompts, entry="prefill")
first = (logits[:, -1:].argmax(-1), cache, torch.full((16,), 64))
compiled = compiled.calibrate({"prefill": [prompts], "step": [first]})


def generate(run: Callable[..., Any]) -> list[int]:
    """Tokens behind the first prompt. run: called with inputs and the name of their entry, gives logits and cache."""
    logits, cache = run(prompts[:1], entry="prefill")
    tokens = [int(logits[0, -1].argmax())]
    for place in range(64, 64 + COUNT - 1):
        logits, cache = run(torch.tensor([tokens[-1:]]), cache, torch.tensor([place]), entry="step")
        tokens.append(int(logits[0, -1].argmax()))
    return tokens


print("floating point:", generate(compiled.float_outputs))
print("one chip:      ", generate(compiled.deploy(seed=0)))

prefill, step = (compiled.entry(name).timing for name in compiled.entries)
print(f"{compiled.utilization.tiles_used} tiles for both entries")
print(f"prompt of 64 tokens: {1e6 * prefill.latency_s:.1f} us, {1e6 * prefill.energy_j:.2f} uJ")
print(f"each further token:  {1e6 * step.latency_s:.2f} us, {1e6 * step.energy_j:.3f} uJ")
