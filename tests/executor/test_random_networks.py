"""Random networks: what compiles gives the network's own outputs, whatever it is made of."""

from pathlib import Path

import pytest
from random_checks import check_network
from random_networks import random_network

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),  # torch's, of the network itself
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
]


def _refused(seed: int, folder: Path) -> bool:
    """Whether a network is refused; all else that may go wrong is told with its source."""
    network = random_network(seed)
    tile = ((40, 24), (7, 5), (64, 64))[seed % 3]
    try:
        return check_network(network.model, network.call(2, seed), network.call(3, seed + 1), folder, tile) is None
    except Exception as error:
        error.add_note(str(network))
        raise


@pytest.mark.parametrize("seed", range(50))
def test_a_random_network_is_computed_as_it_is(seed: int, tmp_path: Path) -> None:
    assert not _refused(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_a_thousand_random_networks(block: int, tmp_path: Path) -> None:
    """In blocks of fifty: at most one in twenty may be refused."""
    refused = [seed for seed in range(50 * block, 50 * (block + 1)) if _refused(seed, tmp_path)]
    assert len(refused) <= 2, refused
