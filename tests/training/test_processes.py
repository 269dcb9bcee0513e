"""Two processes that train one network together."""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aimc_compiler.training import prepare_hwa

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


def train(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    network = prepare_hwa(plain, "analog-fabric", {"range_batches": 2}).train()
    parallel = nn.parallel.DistributedDataParallel(network)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    data = torch.Generator().manual_seed(rank)
    for _ in range(5):
        x = torch.randn(6, 2, 6, 6, generator=data) * (1 + rank)
        optimiser.zero_grad()
        parallel(x).square().mean().backward()
        optimiser.step()
    torch.save(network.state_dict(), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_end_with_one_network(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    torch.multiprocessing.spawn(train, (str(tmp_path), port), nprocs=2)  # type: ignore[no-untyped-call]
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    start: dict[str, Tensor] = {}
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    start.update(plain.state_dict())
    assert not torch.equal(one["0.weight"], start["0.weight"])
    assert int(one["0.analog.seen"]) == 5
