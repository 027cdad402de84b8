"""SecAgg and SecAgg+ as a privacy mechanism of a course."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define

from fs_secagg.client import Client, Masking
from fs_secagg.graph import neighbourhoods
from fs_secagg.keys import digest, identity
from fs_secagg.rules import Policy, session_id, smallest_threshold
from fs_secagg.server import Opened, Server, first_memory
from fs_secagg.summing import Key, RingSum
from fs_secagg.wire import ProtocolError
from fscore.component import ge, gt, option, state
from fscore.errors import PluginError

if TYPE_CHECKING:
    from fs_secagg.ring import Mask
    from fscore.course import Course
    from fscore.participant import Participant
    from fscore.tasks import Cohort, Task

NEGLIGIBLE = 1e-6
"""Probability of a draw that is too small, below which nothing is said."""


@define(eq=False, slots=False)
class SecAgg(RingSum):
    """Secure aggregation: the server learns the sum of a cohort's updates and nothing else of them.

    Bonawitz et al., CCS 2017 (every client shares masks with every other), and with `neighbours` SecAgg+ (Bell et al.,
    CCS 2020). Clients may drop out at any point; with fewer than `threshold` of them, there is no sum.
    """

    name = "secagg"
    neighbours: int | None = option(
        None, doc="k: with how many others a client shares masks; default: with all of its session.",
        validator=ge(2),
    )  # fmt: skip
    threshold: int | None = option(
        None, doc="t: of a client's k neighbours and itself, how many open its secrets; default: the smallest safe.",
        validator=ge(2),
    )  # fmt: skip
    malicious: bool = option(
        False, doc="Sign keys and survivors, against a server that does not follow the protocol."
    )
    step_timeout: float = option(
        60.0, doc="Virtual seconds that the server waits for a message of a step.", validator=gt(0)
    )
    clients: dict[Key, Any] = state(dict)
    survivors: int = state(int)
    dropouts: int = state(int)

    def bind(self, course: Course) -> None:
        super().bind(course)
        self._live: dict[Key, Client] = {}
        self._opened: dict[Key, Opened] = {}

    # ------------------------------------------------------------------------ configuration

    @property
    def policy(self) -> Policy:
        """What clients go along with."""
        k = self.neighbours or self.largest - 1
        floor = self.threshold or smallest_threshold(k, malicious=self.malicious)
        return Policy(self.largest, k, floor, self.malicious)

    @property
    def least(self) -> int:
        return self.policy.floor

    def check(self, course: Course) -> Iterable[str]:
        """Refuse thresholds that protect nobody, or that no cohort can reach."""
        problems = list(super().check(course))
        yield from problems
        if not problems:
            yield from self._rule_problems()
            yield from self._cohort_problems(course)

    def _rule_problems(self) -> Iterable[str]:
        k, n = self.neighbours, self.largest
        if n < 2:
            yield f"{self.where}.use: a session of 1 client hides nothing. Remedy: raise sampler.clients."
        if k is not None and (k > n - 1 or (k % 2 and k != n - 1)):
            yield (
                f"{self.where}.neighbours: must be even and at most {n - 1}, the others of a session, got {k}. "
                "Remedy: lower it, or remove the line for all."
            )
        if self.malicious and self.policy.neighbours != n - 1:
            yield (
                f"{self.where}.neighbours: a server that lies could choose who shares masks with whom. "
                "Remedy: remove the line, or set malicious = false."
            )
        yield from self._threshold_problems()

    def _threshold_problems(self) -> Iterable[str]:
        k, t = self.policy.neighbours, self.policy.floor
        if self.varies and self.threshold is None:
            yield (
                f"{self.where}.threshold: sampler '{self.course.sampler.name}' draws a random number of clients. "
                "Remedy: set the fewest whose sum may be opened; larger sessions have more than half of their clients."
            )
        least = 2 if self.varies else smallest_threshold(k, malicious=self.malicious)
        if not least <= t <= k + 1:
            yield f"{self.where}.threshold: must be between {least} and {k + 1} for {k} neighbours, got {t}."

    def advise(self, course: Course) -> Iterable[str]:
        """Say where small draws of a Poisson sampler are drawn again, which no accountant knows of."""
        if not self.varies:
            return
        n, t = course.population.participants, self.policy.floor
        rate = float(course.sampler.rate(course.population))
        small = sum(math.comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(t))
        if small > NEGLIGIBLE:
            yield (
                f"{self.where}.threshold: with probability {small:.2g} a draw has fewer than {t} clients and is drawn "
                "again; amplification by Poisson sampling does not cover that. Remedy: lower it, or raise "
                "sampler.clients."
            )

    def _cohort_problems(self, course: Course) -> Iterable[str]:
        from fscore.builtin.triggers import GoalAchieved, goal_of

        wanted, least = course.sampler.wanted(course.population), self.policy.floor
        if isinstance(course.trigger, GoalAchieved):
            results, key = goal_of(course.trigger.goal, wanted), "trigger.goal"
        else:
            results, key = min(wanted, self.largest), "sampler.clients"
        if results < least:
            yield (
                f"{key}: {results} results make a version, but '{self.name}' opens no sum of fewer than {least}. "
                f"Remedy: raise it, or lower {self.where}.threshold."
            )

    # ------------------------------------------------------------------------ the participants' machines

    def participants(self) -> Iterable[Participant]:
        """Return the handlers of key exchange and unmasking."""
        from fs_secagg.handlers import SecAggClients, SecAggServer

        rounds: Any = self.course.protocol
        return SecAggServer(self), SecAggClients(rounds, self)

    def begin(self, key: Key) -> None:
        """Draw the graph of a session; its randomness is public.

        Raises:
            ProtocolError: it has too few members.
        """
        session = self.sessions[key]
        rng = self.course.streams.generator("neighbours", *key)
        members = list(session["tasks"])
        rules = self.policy.rules(len(members))
        graph = neighbourhoods(members, rules.neighbours, rng)
        session["server"] = first_memory(graph)

    def server(self, key: Key) -> Server:
        """Return the server of a session."""
        memory = self.sessions[key]["server"]
        return Server(self._id(key[0]), self.policy.rules(len(memory["graph"])), memory)

    def meet(self, task: Task) -> Client:
        """Return a client that got a task, at the beginning of its session."""
        self.clients[(task.wave, task.client)] = {"task": task, "memory": {"step": "new"}}
        self._live.pop((task.wave, task.client), None)
        return self.client(task.wave, task.client)

    def client(self, wave: int, client: int) -> Client:
        """Return a client in its session of a wave; its secrets are derived anew where they are not at hand."""
        key = (wave, client)
        if key not in self._live:
            self._live[key] = self._made(client, wave, self.clients[key]["memory"])
        return self._live[key]

    def _made(self, client: int, wave: int, memory: dict[str, Any]) -> Client:
        return Client(
            client,
            self._id(wave),
            self.policy,
            self.entropy(client, wave),
            memory,
            self._signing(client) if self.malicious else b"",
            lambda other: identity(self._signing(other)),
        )

    def _id(self, wave: int) -> bytes:
        return session_id(self.course.config.course.name, wave)

    def _signing(self, client: int) -> bytes:
        """Return a client's signing key; deployed, it is the client's own, and its public key is known beforehand."""
        seed = str(self.course.streams.seed).encode()
        return digest(b"identity", seed, client.to_bytes(8, "little"))

    def masking(self, task: Task) -> Masking:
        wave, me = task.wave, task.client
        if (wave, me) not in self.clients:  # a trial of an executor: nobody can open it
            return Masking(me, self._id(wave), self.entropy(me, wave), {})
        return self.client(wave, me).masking()

    def forget(self, key: Key, members: Iterable[int]) -> None:
        self._opened.pop(key, None)
        for client in members:
            self.clients.pop((key[0], client), None)
            self._live.pop((key[0], client), None)

    # ------------------------------------------------------------------------ the sum

    def open(self, key: Key) -> None:
        """Reconstruct what opens a session's sum.

        Raises:
            ProtocolError: too few or wrong shares.
        """
        server = self.server(key)
        self._opened[key] = server.open()
        self.survivors = len(server.alive)
        self.dropouts = len(self.sessions[key]["tasks"]) - self.survivors

    def left(self, cohort: Cohort) -> list[Mask]:
        key = self.key_of(cohort.tasks[0])
        if key is None:
            raise PluginError(f"'{self.name}' has no session of cohort {cohort.id}")
        server = self.server(key)
        if server.alive != [task.client for task in cohort.tasks]:
            raise ProtocolError("the cohort is not that whose secrets were opened")
        return server.masks(self._opened.get(key) or server.open())

    def figures(self) -> Mapping[str, float]:
        return {"survivors": float(self.survivors), "dropouts": float(self.dropouts)}
