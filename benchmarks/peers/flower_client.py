"""Flower's clients, in a module of their own: Ray's actors import it, so that nothing but messages travels with a task."""

from __future__ import annotations

import functools

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from workloads import WORKLOADS, clients, model

app = ClientApp()
reused = functools.cache(model)
"""One module per actor and workload."""


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one epoch of plain SGD from the arrays of the message."""
    torch.set_num_threads(1)
    name = str(message.content["config"]["workload"])
    work, module = WORKLOADS[name], reused(name)
    x, y = clients(name)[int(context.node_config["partition-id"])]
    module.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=work.lr)
    for index in torch.randperm(len(y)).split(work.batch_size):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x[index]), y[index]).backward()
        optimizer.step()
    content = {
        "arrays": ArrayRecord(module.state_dict()),
        "metrics": MetricRecord({"num-examples": len(y)}),
    }
    return Message(content=RecordDict(content), reply_to=message)
