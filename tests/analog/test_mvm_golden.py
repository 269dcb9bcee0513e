"""Noise-free outputs of one tile against figures of others.

``golden_forward.npz``: W (64, 48), X (8, 48) and outputs Y of one tile of 48 rows, computed with the public toolkit of
Rasch et al., Nat. Commun. 14, 5282 (2023), version 1.2.0; inputs are clipped to 1, what a case does not name is off.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aimc_compiler.analog import Contraction, MvmSettings, block_weights, dac, mvm
from aimc_compiler.analog.contraction import WindowProduct
from aimc_compiler.analog.row_block import read_windows

GOLDEN = np.load(Path(__file__).parent / "golden_forward.npz")
G_RATIO = 1 / (0.35 * 5e-6)
EIGHT_BITS: dict[str, Any] = {"in_bound": 1.0, "dac_step": 2 / 254, "adc_step": 20 / 254, "out_bound": 10.0}
CASES = {
    "ideal_clip_in": MvmSettings(in_bound=1.0),
    "quant_8b": MvmSettings(**EIGHT_BITS),
    "quant_4b_adc_clip": MvmSettings(in_bound=1.0, dac_step=2 / 14, adc_step=6 / 14, out_bound=3.0),
    "quant_absmax": MvmSettings(**EIGHT_BITS, input_scaling="abs_max"),
    "ir_drop_only": MvmSettings(in_bound=1.0, ir_drop=1.0, g_ratio=G_RATIO),
    "sshape_only": MvmSettings(in_bound=1.0, s_shape=0.05, out_bound=10.0),
    "r_series_wmin0_slopecal": MvmSettings(
        in_bound=1.0, r_series=0.02, reference_weight=0.0, slope_span=5.0, out_bound=10.0
    ),
    "posneg": MvmSettings(**EIGHT_BITS, passes="analog", ir_drop=1.0, g_ratio=G_RATIO),
    "inp_out_asym": MvmSettings(in_bound=1.0, input_asymmetry=0.05, output_asymmetry=0.03),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_the_published_toolkit(case: str) -> None:
    settings, product = CASES[case], WindowProduct()
    w, x = torch.from_numpy(GOLDEN["W"])[None], torch.from_numpy(GOLDEN["X"])
    weights = block_weights(w, 0, torch.zeros(1, 64), product, settings)
    y = read_windows(x[None, None], weights, settings, None)[0, 0]
    assert np.abs(y.T.numpy() - GOLDEN[f"Y_{case}"]).max() <= 2e-6


@pytest.mark.parametrize("case", [case for case, settings in CASES.items() if not settings.unfolds])
def test_outputs_are_the_same_without_windows(case: str) -> None:
    settings, linear = CASES[case], Contraction(kind="linear")
    w, x = torch.from_numpy(GOLDEN["W"])[None], torch.from_numpy(GOLDEN["X"])
    weights = block_weights(w, 0, torch.zeros(1, 64), linear, settings)
    y = mvm(dac(linear.inputs_of(x, 1, 0, 48), settings), weights, linear, settings, None)
    assert np.abs(y[:, 0].numpy() - GOLDEN[f"Y_{case}"]).max() <= 2e-6


@pytest.mark.parametrize("case", [case for case in CASES if case != "ideal_clip_in"])
def test_every_case_is_far_from_the_ideal_one(case: str) -> None:
    """So that the cases above can fail."""
    near = "quant_8b" if case == "quant_absmax" else "ideal_clip_in"
    assert np.abs(GOLDEN[f"Y_{case}"] - GOLDEN[f"Y_{near}"]).max() > 1e-4
