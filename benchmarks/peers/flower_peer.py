"""Flower on Ray as a contender: `python flower_peer.py WORKLOAD [ACTORS]` prints microseconds per client.

`run_simulation` of Flower 1.42 with its message API; the clients are in `flower_client.py`. Flower calls `run_simulation`
deprecated, but the engine under it is that of `flwr run`.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import flower_client
import ray
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from workloads import WORKLOADS, Clock, model, silent

ROUNDS = 5
"""The first one, in which actors make their clients' data, is not measured."""


class Timed(FedAvg):
    """Marks the end of each round, in which every client must have answered."""

    def __init__(self, cohort: int, clients: int, clock: Clock) -> None:
        super().__init__(
            fraction_train=cohort / clients,
            fraction_evaluate=0.0,
            min_train_nodes=cohort,
            min_available_nodes=clients,
        )
        self.cohort, self.clock = cohort, clock

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        wrong = [reply.error.reason for reply in replies if reply.has_error()]
        if wrong or len(replies) != self.cohort:
            raise RuntimeError(f"{len(replies)} of {self.cohort} clients answered: {wrong[:1]}")
        aggregated = super().aggregate_train(server_round, replies)
        self.clock.mark()
        return aggregated


def main(name: str, actors: str = "2") -> None:
    work, clock = WORKLOADS[name], Clock()
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        Timed(work.cohort, work.clients, clock).start(
            grid,
            initial_arrays=ArrayRecord(model(name).state_dict()),
            num_rounds=ROUNDS,
            train_config=ConfigRecord({"workload": name}),
        )

    resources = {"num_cpus": (os.cpu_count() or 2) / int(actors), "num_gpus": 0.0}
    init = {"logging_level": logging.ERROR, "log_to_driver": False}
    with silent():
        try:
            run_simulation(
                server,
                flower_client.app,
                num_supernodes=work.clients,
                backend_config={"client_resources": resources, "init_args": init},
            )
        except RuntimeError:
            traceback.print_exc()
            ray.shutdown()
            os._exit(1)  # the server's thread would wait an hour for answers
    clock.report(work.cohort)


if __name__ == "__main__":
    main(*sys.argv[1:])
