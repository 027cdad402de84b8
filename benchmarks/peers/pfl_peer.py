"""pfl-research as a contender: `python pfl_peer.py WORKLOAD`; under `torch.distributed.run` it uses several processes."""

from __future__ import annotations

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Weighted
from pfl.model.pytorch import PyTorchModel
from workloads import WORKLOADS, Clock, clients, model, silent


class Wrapped(torch.nn.Module):
    """A module with the methods that pfl asks for."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def loss(self, x, y, is_eval=False):
        self.train(not is_eval)
        return torch.nn.functional.cross_entropy(self.inner(x), y)

    @torch.no_grad()
    def metrics(self, x, y):
        self.eval()
        loss = torch.nn.functional.cross_entropy(self.inner(x), y, reduction="sum")
        return {"loss": Weighted(loss.item(), len(y))}


class Rounds(TrainingProcessCallback):
    """Marks the end of each round."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        self.clock.mark()
        return False, aggregate_metrics.__class__()


def main(name: str) -> None:
    torch.set_num_threads(1)
    work, data = WORKLOADS[name], clients(name)
    wrapped = Wrapped(model(name))
    pfl_model = PyTorchModel(
        wrapped, torch.optim.SGD, torch.optim.SGD(wrapped.parameters(), lr=1.0)
    )
    users = list(range(len(data)))
    dataset = FederatedDataset(
        lambda user: PyTorchTensorDataset(data[user], user_id=str(user)),
        get_user_sampler("minimize_reuse", users),
    )
    clock = Clock()
    with silent():
        FederatedAveraging().run(
            NNAlgorithmParams(
                central_num_iterations=work.rounds + 2,
                evaluation_frequency=10_000,
                train_cohort_size=work.cohort,
                val_cohort_size=0,
            ),
            SimulatedBackend(dataset, dataset),
            pfl_model,
            NNTrainHyperParams(
                local_num_epochs=1, local_learning_rate=work.lr, local_batch_size=work.batch_size
            ),
            NNEvalHyperParams(local_batch_size=None),
            callbacks=[Rounds(clock)],
        )
    if os.environ.get("RANK", "0") == "0":
        clock.report(work.cohort)


if __name__ == "__main__":
    main(sys.argv[1])
