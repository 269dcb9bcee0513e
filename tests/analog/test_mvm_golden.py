"""Noise-free outputs of one tile against figures of others.

``golden_forward.npz``: W (64, 48), X (8, 48) and outputs Y of one tile of 48 rows, computed with the public toolkit of
Rasch et al., Nat. Commun. 14, 5282 (2023), version 1.2.0; inputs are clipped to 1, what a case does not name is off.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from aimc_compiler.analog import Contraction, MvmSettings, block_weights, dac, mvm

GOLDEN = np.load(Path(__file__).parent / "golden_forward.npz")
G_RATIO = 1 / (0.35 * 5e-6)
CASES = {
    "ideal_clip_in": MvmSettings(in_bound=1.0),
    "quant_8b": MvmSettings(in_bound=1.0, dac_step=2 / 254, adc_step=20 / 254, out_bound=10.0),
    "quant_4b_adc_clip": MvmSettings(in_bound=1.0, dac_step=2 / 14, adc_step=6 / 14, out_bound=3.0),
    "ir_drop_only": MvmSettings(in_bound=1.0, ir_drop=1.0, g_ratio=G_RATIO),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_the_published_toolkit(case: str) -> None:
    settings, linear = CASES[case], Contraction(kind="linear")
    w, x = torch.from_numpy(GOLDEN["W"])[None], torch.from_numpy(GOLDEN["X"])
    weights = block_weights(w, 0, torch.zeros(1, 64), linear, settings)
    y = mvm(dac(linear.inputs_of(x, 1, 0, 48), settings), weights, linear, settings, None)
    assert np.abs(y[:, 0].numpy() - GOLDEN[f"Y_{case}"]).max() <= 2e-6


def test_the_ir_drop_of_the_case_is_far_above_the_tolerance() -> None:
    """So that the case above can fail."""
    assert np.abs(GOLDEN["Y_ir_drop_only"] - GOLDEN["Y_ideal_clip_in"]).max() > 1e-4
