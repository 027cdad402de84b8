"""FedLab as a contender: `python fedlab_peer.py WORKLOAD` prints microseconds per client.

Its stand-alone mode uses one process. Importing FedLab imports its image data sets, and they torchvision, whose wheel in the
registry loads only beside a CUDA build of torch. No data set of FedLab is used here: an empty module stands in for torchvision.
"""

# ruff: noqa: E402

from __future__ import annotations

import os
import sys
from types import ModuleType

os.environ["OMP_NUM_THREADS"] = "1"

sys.modules["torchvision"] = ModuleType("torchvision")
sys.modules["torchvision"].transforms = ModuleType("torchvision.transforms")

import torch
from fedlab.contrib.algorithm import FedAvgSerialClientTrainer, FedAvgServerHandler
from fedlab.contrib.dataset.basic_dataset import BaseDataset, FedDataset
from fedlab.core.standalone import StandalonePipeline
from torch.utils.data import DataLoader
from workloads import WORKLOADS, Clock, clients, model, silent


class Clients(FedDataset):
    """Clients' samples in memory."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.sets = [BaseDataset(x, y) for x, y in clients(name)]
        self.num = len(self.sets)

    def get_dataloader(self, id, batch_size, type="train"):  # noqa: A002
        return DataLoader(self.sets[id], batch_size=batch_size, shuffle=True)


class Rounds(StandalonePipeline):
    """Marks the end of each round instead of evaluating."""

    def __init__(self, handler, trainer, clock: Clock) -> None:
        super().__init__(handler, trainer)
        self.clock = clock

    def evaluate(self) -> None:
        self.clock.mark()


def main(name: str) -> None:
    torch.set_num_threads(1)
    work, clock = WORKLOADS[name], Clock()
    with silent():
        trainer = FedAvgSerialClientTrainer(model(name), work.clients)
        trainer.setup_dataset(Clients(name))
        trainer.setup_optim(epochs=1, batch_size=work.batch_size, lr=work.lr)
        handler = FedAvgServerHandler(model(name), work.rounds + 2, work.cohort / work.clients)
        rounds = Rounds(handler, trainer, clock)
        assert handler.num_clients_per_round == work.cohort, handler.num_clients_per_round
        rounds.main()
    clock.report(work.cohort)


if __name__ == "__main__":
    main(sys.argv[1])
