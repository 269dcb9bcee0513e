"""Device statistics against published ones: means and standard deviations over many devices."""

import pytest
import torch

from aimc_compiler.analog import PieceDevices, Streams
from aimc_compiler.analog.devices import nu_mean, nu_sd, programming_sd_us, q
from aimc_compiler.chip.devices import DEVICES, PcmFigures
from aimc_compiler.chip.stored import DeviceNonidealities

# Sampled with the public toolkit of Rasch et al., Nat. Commun. 14, 5282 (2023), version 1.1.0, 40 000 devices a level:
# target, then (mean, standard deviation) in uS as programmed and after 0 s, 1 h, 1 day, 30 days, 1 year.
TIMES_S = (0.0, 3600.0, 86_400.0, 2_592_000.0, 31_536_000.0)
PUBLISHED_US = {
    0.0: ((0.10607, 0.154885), (0.108275, 0.187371), (0.0670854, 0.123198), (0.0516125, 0.101462),
          (0.0393058, 0.0832803), (0.0326842, 0.075588)),
    4.16667: ((4.1651, 0.556602), (4.16498, 0.743961), (3.18772, 0.666233), (2.71919, 0.657383),
              (2.29601, 0.652036), (2.03199, 0.648514)),
    8.33333: ((8.33233, 0.790842), (8.33381, 1.0137), (6.46772, 0.869338), (5.54716, 0.822232),
              (4.70452, 0.777347), (4.16604, 0.752739)),
    12.5: ((12.5016, 0.954926), (12.4971, 1.19564), (9.70553, 1.06001), (8.31515, 1.03556),
           (7.05737, 1.01149), (6.25632, 0.994018)),
    16.6667: ((16.6697, 1.04672), (16.6697, 1.31822), (12.9338, 1.20989), (11.0909, 1.20628),
              (9.4167, 1.22519), (8.34919, 1.22669)),
    20.8333: ((20.8427, 1.09282), (20.8456, 1.39529), (16.1764, 1.32458), (13.8603, 1.37596),
              (11.7635, 1.42176), (10.4331, 1.44608)),
    25.0: ((25.0039, 1.05574), (25.0091, 1.39653), (19.3886, 1.40509), (16.6243, 1.51628),
           (14.1033, 1.61271), (12.5008, 1.65189)),
}  # fmt: skip
SAMPLES = 640_000


def figures(model: str) -> PcmFigures:
    found = DEVICES[model].figures
    assert found is not None
    return found


@pytest.mark.parametrize("target_us", PUBLISHED_US)
def test_conductances_equal_the_published_toolkit(target_us: float) -> None:
    """Within 1 %, and 4 % at zero, where 40 000 samples say no more. The positive devices of pairs."""
    within = 0.04 if target_us == 0 else 0.01
    devices = PieceDevices(
        target=torch.full((1, SAMPLES), target_us / 25),
        streams=Streams(seed=1, chip=0, piece="statistics"),
        effects=DeviceNonidealities(),
        figures=figures("pcm"),
    )
    published = PUBLISHED_US[target_us]
    for (mean, sd), g in zip(published, [devices.conductances(t)[0] * 25 for t in (None, *TIMES_S)], strict=True):
        assert float(g.mean()) == pytest.approx(mean, rel=within)
        assert float(g.std()) == pytest.approx(sd, rel=within)


@pytest.mark.parametrize(
    ("model", "r", "expected"),
    [
        # Rasch et al. 2023: sigma_P in uS, mean and sd of nu, Q; the formulas evaluated by hand.
        ("pcm", 0.0, (0.26348, 0.1, 0.045, 0.2)),
        ("pcm", 1 / 6, (0.558394, 0.0521723, 0.016497, 0.0282021)),
        ("pcm", 1.0, (1.05538, 0.049, 0.008, 0.0088)),
        # Le Gallo et al., Nat. Electron. 6, 680 (2023): both branches of each fit.
        ("pcm_hermes_two", 0.05, (0.381315, 0.0977348, 0.0293501, 0.0281501)),
        ("pcm_hermes_two", 0.5, (0.990954, 0.0564, 0.009, 0.0167125)),
        ("pcm_hermes_one", 0.05, (0.268739, 0.0977348, 0.0336488, 0.0271667)),
        ("pcm_hermes_one", 0.5, (0.865305, 0.0564, 0.012075, 0.0217)),
    ],
)
def test_fits_at_single_points(model: str, r: float, expected: tuple[float, ...]) -> None:
    point = torch.tensor([r], dtype=torch.float64)
    fits = [f(point, figures(model)) for f in (programming_sd_us, nu_mean, nu_sd, q)]
    assert [float(value) for value in fits] == pytest.approx(expected, rel=1e-4)
