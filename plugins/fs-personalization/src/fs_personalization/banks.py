"""Several models at the server: one per client, one per cluster, or components of a mixture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define

from fs_personalization.common import unclipped
from fs_personalization.local import Local
from fscore.builtin.reference import fresh
from fscore.builtin.trainers import SGD
from fscore.component import ge, gt, option
from fscore.context import Phase
from fscore.params import Group, Layout, Tensors

if TYPE_CHECKING:
    import torch

    from fscore.context import Context, Samples
    from fscore.course import Course
    from fscore.params import ParamSpace
    from fscore.tasks import Cohort


def whole(trainer: SGD, name: str) -> Iterable[str]:
    """Refuse private and frozen parts, for methods whose clients hold several whole models."""
    for key in ("private", "frozen"):
        if getattr(trainer, key):
            yield (f"trainer.{key}: '{name}' exchanges whole models. Remedy: remove trainer.{key}.")


@define(eq=False, slots=False)
class FedAMP(Local):
    """FedAMP (Huang et al., Personalized Cross-Silo Federated Learning on Non-IID Data, AAAI 2021, algorithm 1).

    The server holds every client's model w_i and sends client i its cloud model
    u_i = (1 - sum of xi_ij) w_i + sum of xi_ij w_j over j != i, xi_ij = alpha A'(||w_i - w_j||^2), A(x) = 1 - exp(-x / sigma).
    The client begins from u_i, minimises f_i(w) + lamda / 2 ||w - u_i||^2 and deploys w. (The paper's weight of that term is
    lamda / alpha.) Clients that trained take part in u; one that never did receives their mean. Clients send w itself and not
    how it changed, so that an update that was lost leaves nothing behind.
    """

    name = "fedamp"
    needs = frozenset({"individual_updates", "per_client_download"})
    per_client_download: ClassVar[bool] = True

    alpha: float | None = option(
        None,
        doc="Step of the attention; default: sigma / clients, at most sigma / (clients - 1).",
        validator=ge(0),
    )
    sigma: float = option(10.0, doc="Scale of squared distances.", validator=gt(0))
    lamda: float = option(0.1, doc="Pull to the cloud model.", validator=ge(0), per_client=True)

    def bind(self, course: Course) -> None:
        super().bind(course)
        self.size, self.others = course.population.size, course.population.participants - 1
        self.unseen = frozenset(course.population.unseen)

    def check(self, course: Course) -> Iterable[str]:
        yield from super().check(course)
        yield from whole(self, self.name)
        yield from unclipped(course, self.name, "its own model")
        if (self.alpha or 0.0) * self.others > self.sigma:
            yield (
                f"trainer.alpha: {self.alpha} gives a client's own model a negative weight. "
                f"Remedy: set it to trainer.sigma / {self.others} = {self.sigma / self.others:.6g} at most."
            )

    def slots(self, space: ParamSpace) -> Layout:
        return {
            "models": Group((self.size, space.size)),
            "trained": Group((self.size,), reduce="sum"),
        }

    def first_slots(self, initial: torch.Tensor) -> Tensors:
        return {
            "models": initial.repeat(self.size, 1),
            "trained": initial.new_zeros(self.size),
        }

    def downloads(self, space: ParamSpace) -> Layout:
        return {"cloud": Group((space.size,)), "client": Group((), "int64")}

    def download(self, slots: Tensors, client: int) -> Tensors:
        import torch

        return {"cloud": self.cloud(slots, client), "client": torch.tensor(client)}

    def cloud(self, slots: Tensors, client: int) -> torch.Tensor:
        """Return a client's cloud model (P,)."""
        models, trained = slots["models"], slots["trained"]
        if not bool(trained.any()):
            return models[client]
        if not bool(trained[client]):
            return models[trained > 0].mean(dim=0)
        weights = self.attention(models, client) * trained
        weights[client] = 0.0
        weights[client] = 1.0 - weights.sum()
        return weights @ models

    def attention(self, models: torch.Tensor, client: int) -> torch.Tensor:
        """Return alpha A'(||w_i - w_j||^2) for every j: (clients,), of the models (clients, P)."""
        alpha = self.sigma / (self.others + 1) if self.alpha is None else self.alpha
        distances = (models - models[client]).square().sum(dim=1)
        return alpha / self.sigma * (-distances / self.sigma).exp()

    def groups(self, space: ParamSpace) -> Layout:
        return {
            "model": Group((space.size,), slot="models", at="client", rows=self.size),
            "client": Group((), "int64", "sum", public=True),
        }

    def row(self, space: ParamSpace) -> Layout:
        return {**super().row(space), "trained": Group((1,))}

    def start(self, context: Context) -> Tensors:
        import torch

        cloud, own = context.sent["cloud"], context.row["personal"]
        if context.task.kind == "evaluate":
            return {"model": torch.where(context.row["trained"] > 0, own, cloud), "cloud": cloud}
        return {"model": cloud, "cloud": cloud}

    def adjust(self, gradient: Tensors, variables: Tensors, context: Context) -> Tensors:
        pull = context.options["lamda"] * (variables["model"] - variables["cloud"])
        return {"model": gradient["model"] + pull}

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        import torch

        _, rows = super().finish(variables, context)
        trained = torch.ones_like(context.row["trained"])
        groups = {"model": variables["model"], "client": context.sent["client"]}
        return groups, {**rows, "trained": trained}

    def directions(self, slots: Tensors, reduced: Tensors, cohort: Cohort) -> Tensors:
        came = slots["trained"].new_zeros(self.size)
        for task in cohort.tasks:
            came[task.client] = 1.0
        change = came[:, None] * (reduced["model"] - slots["models"])
        return {"models": change, "trained": came * (1.0 - slots["trained"])}


@define(eq=False, slots=False)
class IFCA(SGD):
    """IFCA (Ghosh et al., An Efficient Framework for Clustered Federated Learning, NeurIPS 2020, algorithm 1, option II).

    The server sends k models; a client trains the one whose loss on its training samples is least, and each model becomes
    the mean of those who chose it. Every evaluation chooses anew, so that unseen clients need nothing else.
    """

    name = "ifca"
    needs = frozenset({"individual_updates"})
    clusters: int = option(3, doc="k: models at the server.", validator=ge(1))

    def bind(self, course: Course) -> None:
        super().bind(course)
        self.first = [fresh(course, j) for j in range(self.clusters)]

    def check(self, course: Course) -> Iterable[str]:
        yield from super().check(course)
        yield from whole(self, self.name)

    def slots(self, space: ParamSpace) -> Layout:
        return {"models": Group((self.clusters, space.size))}

    def first_slots(self, initial: torch.Tensor) -> Tensors:
        import torch

        return {"models": torch.stack(self.first)}

    def groups(self, space: ParamSpace) -> Layout:
        return {
            "model": Group((space.size,), slot="models", at="cluster", rows=self.clusters),
            "cluster": Group((), "int64", "sum", public=True),
        }

    def survey(self, samples: Samples, context: Context) -> Tensors:
        import torch

        losses = torch.stack([context.losses(m, samples) for m in context.sent["models"]])
        if samples.valid is not None:
            losses = losses * samples.valid
        return {"losses": losses.sum(dim=-1)}

    def start(self, context: Context) -> Tensors:
        import torch

        cluster = context.measured["losses"].argmin(dim=-1)
        bank = context.sent["models"]  # (..., k, P)
        bank = bank.expand(*cluster.shape, *bank.shape[-2:])
        model = torch.take_along_dim(bank, cluster[..., None, None], dim=-2).squeeze(-2)
        return {"model": model, "anchor": model, "cluster": cluster}

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        change = variables["model"] - variables["anchor"]
        return {"model": change, "cluster": variables["cluster"]}, {}


@define(eq=False, slots=False)
class FedEM(SGD):
    """FedEM (Marfoq et al., Federated Multi-Task Learning under a Mixture of Distributions, NeurIPS 2021, algorithm 1).

    All clients share M models, each client has its mixture pi of them. A task begins with the E-step on all of the
    client's samples, q_jm ~ pi_m exp(-loss_m(x_j)), sets pi to the mean of q, and trains the M models on q-weighted losses.
    A client predicts with its mixture, after an E-step on its training samples: so do unseen clients.
    """

    name = "fedem"
    models: int = option(3, doc="M: components of the mixture.", validator=ge(1))

    def bind(self, course: Course) -> None:
        super().bind(course)
        self.first = [fresh(course, m) for m in range(self.models)]
        self.names = ("model", *(f"model{m}" for m in range(1, self.models)))

    def check(self, course: Course) -> Iterable[str]:
        yield from super().check(course)
        yield from whole(self, self.name)
        if course.objective.name != "classification":
            yield (
                f"objective.use: 'fedem' mixes class probabilities, but the objective is '{course.objective.name}'. "
                'Remedy: use "classification".'
            )

    def slots(self, space: ParamSpace) -> Layout:
        return {name: Group((space.size,)) for name in self.names}

    def first_slots(self, initial: torch.Tensor) -> Tensors:
        return {name: first.clone() for name, first in zip(self.names, self.first, strict=True)}

    def groups(self, space: ParamSpace) -> Layout:
        return {name: Group((space.size,), slot=name) for name in self.names}

    def row(self, space: ParamSpace) -> Layout:
        return {"mixture": Group((self.models,))}

    def first_row(self, initial: torch.Tensor) -> Tensors:
        return {"mixture": initial.new_full((self.models,), 1 / self.models)}

    def survey(self, samples: Samples, context: Context) -> Tensors:
        import torch

        losses = torch.stack([context.losses(context.sent[n], samples) for n in self.names])
        prior = context.row["mixture"].clamp(min=1e-30).log()
        shares = torch.softmax(prior[:, None] - losses, dim=0)  # (M, samples)
        valid = torch.ones_like(losses[0]) if samples.valid is None else samples.valid
        mixture = (shares * valid).sum(dim=1) / valid.sum()
        return {"shares": shares, "mixture": mixture}

    def start(self, context: Context) -> Tensors:
        return {**{name: context.sent[name] for name in self.names}, **context.measured}

    def phases(self, context: Context) -> Sequence[Phase]:
        return (Phase(self.names),)

    def finetune_phases(self, context: Context) -> Sequence[Phase]:
        return (Phase(self.names, self.finetune),) if self.finetune else ()

    def loss(self, variables: Tensors, batch: Samples, context: Context) -> torch.Tensor:
        import torch

        shares = variables["shares"]  # (M, samples of the client)
        if batch.numbers is not None:
            shares = shares.index_select(-1, batch.numbers)
        losses = torch.stack([context.losses(variables[n], batch) for n in self.names])
        return (shares * losses).sum(dim=0)

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        models = {name: variables[name] for name in self.names}
        return models, {"mixture": variables["mixture"]}

    def predict(self, variables: Tensors, samples: Samples, context: Context) -> torch.Tensor:
        import torch

        outputs = torch.stack([context.outputs(variables[n], samples) for n in self.names])
        prior = variables["mixture"].clamp(min=1e-30).log()
        mixed: Any = prior[:, None, None] + outputs.log_softmax(dim=-1)
        return torch.logsumexp(mixed, dim=0)

    def work(self, samples: int, options: Mapping[str, Any]) -> float:
        return self.models * super().work(samples, options)
