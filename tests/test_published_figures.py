"""Counts and figures that others published, from whole compilations.

ResNet-18 at one matrix a tile: two independent compilers give the same tile and activation counts. HERMES: Le Gallo et
al., Nat. Electron. 6, 680 (2023). ISAAC: Shafiee et al., ISCA (2016).
"""

import pytest
import torch
from networks import resnet18
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.program import count


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return resnet18().eval()


@pytest.mark.parametrize(
    ("size", "tiles", "utilization"), [(128, 727, 0.981), (256, 201, 0.887), (512, 75, 0.594), (1024, 45, 0.248)]
)
def test_resnet18_tiles(resnet: nn.Module, size: int, tiles: int, utilization: float) -> None:
    chip = aimc.load_chip("analog-fabric", overrides=(f"tile.rows={size}", f"tile.columns={size}"))
    compiled = aimc.compile(resnet, chip, (torch.zeros(1, 3, 224, 224),))
    assert compiled.utilization.tiles_used == tiles
    assert compiled.utilization.utilization == pytest.approx(utilization, abs=5e-4)
    if size == 128:
        assert count(compiled.program).row_group_activations == 132_500


def chain(layers: int, size: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(layers))).eval()


@pytest.mark.parametrize(("mode", "tops"), [("one_phase", 63.1), ("four_phase", 16.1)])
def test_hermes_full(mode: str, tops: float) -> None:
    chip = aimc.load_chip("hermes", overrides=(f"tile.mvm.mode={mode}",))
    compiled = aimc.compile(chain(64, 256), chip, (torch.zeros(1, 256),))
    assert compiled.utilization.tiles_used == 64
    assert compiled.utilization.utilization == 1.0
    assert compiled.timing.tops == pytest.approx(tops, abs=0.05)


def test_isaac_full() -> None:
    compiled = aimc.compile(chain(126, 512), "isaac", (torch.zeros(1, 512),))
    assert compiled.utilization.tiles_used == 168 * 12 * 8
    assert compiled.utilization.utilization == 1.0
    assert compiled.timing.tops == pytest.approx(41.3, abs=0.05)
