"""The protocol: exact sums for every pattern of drops, and nothing but the sum to be computed."""

import copy
import functools
import itertools

import numpy as np
import pytest
from fs_secagg import keys
from fs_secagg.ring import add_masks, expand
from fs_secagg.rules import Rules, smallest_threshold
from fs_secagg.session import ROUNDS, Session
from fs_secagg.transcript import computable_sums
from fs_secagg.wire import ProtocolError
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_helpers import outcome, random_vectors


def subsets(items):
    items = list(items)
    return (
        set(chosen)
        for size in range(len(items) + 1)
        for chosen in itertools.combinations(items, size)
    )


def modular_sum(session, clients):
    return sum(session.vectors[u] for u in clients)


class Explorer:
    """Walks through all patterns of drops of a session, sharing what their beginnings have in common."""

    def __init__(self, n, threshold, *, malicious=False):
        self.rules = Rules(n - 1, threshold, malicious)
        self.session = Session(random_vectors(range(n), 3, np.uint32, seed=n), self.rules)
        self.clients = self.session.clients
        self.good = self.aborted = 0

    def server(self, memory):
        self.session.server.memory = copy.deepcopy(memory)
        return self.session.server

    def remembering(self, memories, u):
        self.clients[u].memory = copy.deepcopy(memories[u])
        return self.clients[u]

    def closed(self, there, close, *arguments):
        """Close a round that `there` took part in; None if it was right to end the session."""
        try:
            asked = close(*arguments)
        except ProtocolError:
            assert len(there) < self.rules.threshold
            assert computable_sums(self.session.server, self.session.received) == []
            self.aborted += 1
            return None
        assert len(there) >= self.rules.threshold
        return asked

    def heard(self, memory, memories, there, asked, answer):
        """Let `there` answer what they were asked."""
        server, after = self.server(memory), dict(memories)
        for u in sorted(there):
            client = self.remembering(memories, u)
            server.hear(u, answer(client, asked[u]))
            after[u] = client.memory
        return server, after

    def run(self):
        first = self.session.server.memory
        memories = {u: client.memory for u, client in self.clients.items()}
        nothing = dict.fromkeys(self.clients, b"")
        for there in subsets(self.clients):
            server, after = self.heard(first, memories, there, nothing, lambda c, _: c.advertise())
            asked = self.closed(there, server.close_keys)
            if asked:
                self.shares(server.memory, after, there, asked)
        return self

    def shares(self, memory, memories, before, asked):
        everybody, after = self.heard(
            memory, memories, before, asked, lambda c, body: c.share(body)
        )
        sealed = everybody.memory["sealed"]
        for there in subsets(before):
            server = self.server(memory)
            server.memory["sealed"] = {u: sealed[u] for u in sorted(there)}
            bodies = self.closed(there, server.close_shares)
            if bodies:
                self.vectors(server.memory, after, there, bodies)

    def vectors(self, memory, memories, before, bodies):
        after = dict(memories)
        for u in before:
            client = self.remembering(memories, u)
            client.receive(bodies[u])
            self.session.received[u] = self.session.vectors[u].copy()
            add_masks(self.session.received[u], client.mask().masks())
            after[u] = client.memory
        masked = dict(self.session.received)
        for there in subsets(before):
            self.session.received = {u: masked[u] for u in there}
            server = self.server(memory)
            asked = self.closed(there, server.close_vectors, there)
            if asked and self.rules.malicious:
                self.signatures(server.memory, after, there, asked)
            elif asked:
                self.answers(server.memory, after, there, asked)
        self.session.received = {}

    def signatures(self, memory, memories, before, asked):
        for there in subsets(before):
            server, after = self.heard(
                memory, memories, there, asked, lambda c, body: c.agree_on(body)
            )
            requests = self.closed(there, server.close_signatures)
            if requests:
                self.answers(server.memory, after, there, requests)

    def answers(self, memory, memories, before, asked):
        everybody, _ = self.heard(memory, memories, before, asked, lambda c, body: c.unmask(body))
        answers = everybody.memory["answers"]
        for there in subsets(before):
            server = self.server(memory)
            server.memory["answers"] = {u: answers[u] for u in sorted(there)}
            total = self.closed(there, self.session.total)
            if total is not None:
                alive = server.alive
                assert np.array_equal(total, modular_sum(self.session, alive))
                assert computable_sums(server, self.session.received) == [tuple(alive)]
                self.good += 1


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_every_pattern_of_drops_gives_the_exact_sum_or_nothing(n):
    """Every subset of every round goes on; the count of good ends is that of chains of sets of at least t."""
    threshold = smallest_threshold(n - 1, malicious=False)
    explored = Explorer(n, threshold).run()

    assert explored.good == chains(n, threshold, rounds=4)


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_every_pattern_of_drops_against_a_server_that_may_lie(n):
    threshold = smallest_threshold(n - 1, malicious=True)
    explored = Explorer(n, threshold, malicious=True).run()

    assert explored.good == chains(n, threshold, rounds=5)


@functools.cache
def chains(n, threshold, rounds):
    """Return how many decreasing chains of so many subsets of n there are, all of at least `threshold`."""
    if not rounds:
        return 1
    return sum(
        len(list(itertools.combinations(range(n), size))) * chains(size, threshold, rounds - 1)
        for size in range(threshold, n + 1)
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(7, 14), st.data())
def test_larger_sessions_with_any_drops(n, data):
    drops = data.draw(
        st.dictionaries(st.integers(0, n - 1), st.sampled_from([*ROUNDS[:3], "answer"]))
    )
    dtype = data.draw(st.sampled_from([np.uint32, np.uint64]))
    threshold = smallest_threshold(n - 1, malicious=False)
    session = Session(random_vectors(range(n), 4, dtype), Rules(n - 1, threshold), drops, seed=n)
    total = outcome(session)
    alive = [u for u in range(n) if drops.get(u) in (None, "answer")]

    if len(session.server.memory["answers"]) >= threshold:
        assert np.array_equal(total, modular_sum(session, alive))
        assert computable_sums(session.server, session.received) == [tuple(alive)]
    else:
        assert isinstance(total, str)
        assert computable_sums(session.server, session.received) == []


def test_a_sparse_graph_gives_the_same_sum():
    vectors = random_vectors(range(30), 50, np.uint32)
    drops = {3: "keys", 7: "shares", 11: "vector", 12: "vector", 20: "answer"}
    session = Session(vectors, Rules(12, 7), drops)

    total = session.run()

    assert np.array_equal(total, modular_sum(session, session.server.alive))
    assert computable_sums(session.server, session.received) == [tuple(session.server.alive)]
    assert {len(session.server.around(u)) for u in range(30)} == {12}


def test_a_vector_that_comes_late_stays_hidden():
    """Its sender was counted as dropped, so that its shared masks are known; its own mask is not."""
    session = Session(random_vectors(range(5), 4, np.uint32), Rules(4, 3), {4: "vector"})
    session.run()
    client = session.clients[4]
    client.receive(session.asked[4])
    late = session.vectors[4].copy()
    add_masks(late, client.mask().masks())
    left = session.server.masks(session.server.open())[4:]
    add_masks(late, [(-sign, seed) for sign, seed in left])

    own = late - session.vectors[4]

    assert len(left) == 4
    assert np.array_equal(own, expand(client.masking().masks()[0][1], 4, np.uint32))
    assert computable_sums(session.server, {*session.received, 4}) == [(0, 1, 2, 3)]


def test_the_server_and_fewer_than_t_corrupt_clients_learn_the_sum_of_the_others():
    session = Session(random_vectors(range(6), 4, np.uint32), Rules(5, 4), {5: "vector"})
    session.run()

    assert computable_sums(session.server, session.received, corrupt={0, 1}) == [(2, 3, 4)]


def test_as_many_corrupt_clients_as_the_threshold_learn_everything():
    session = Session(random_vectors(range(6), 4, np.uint32), Rules(5, 4))
    session.run()

    assert computable_sums(session.server, session.received, corrupt={0, 1, 2, 3}) == [(4,), (5,)]


def test_a_graph_that_falls_apart_gives_the_sums_of_its_parts():
    """The check sees it: two pairs without a mask between them."""
    session = Session(random_vectors(range(4), 4, np.uint32), Rules(2, 2))
    session.server.memory["graph"] = {0: (1,), 1: (0,), 2: (3,), 3: (2,)}
    session.run()

    assert computable_sums(session.server, session.received) == [(0, 1), (2, 3)]


def test_the_bytes_of_a_session():
    """Masked vectors apart, a client sends 96 bytes of keys, 82 + 4 a neighbour, and 34 + 4 a share that it opens."""
    session = Session(random_vectors(range(5), 4, np.uint32), Rules(4, 3))
    session.run()

    assert {u: len(sent) for u, sent in session.sent.items()} == dict.fromkeys(
        range(5), 32 + 96 + 32 + 4 * 86 + 32 + 5 * 38
    )


def test_a_session_repeats():
    sessions = [Session(random_vectors(range(5), 4, np.uint32), Rules(4, 3)) for _ in range(2)]
    for session in sessions:
        session.run()

    one, other = sessions
    assert one.server.memory == other.server.memory
    assert all(np.array_equal(one.received[u], other.received[u]) for u in range(5))


def test_another_session_has_other_keys():
    one, other = (
        Session(random_vectors(range(3), 4, np.uint32), Rules(2, 2), seed=seed) for seed in (0, 1)
    )

    assert one.clients[0].advertise() != other.clients[0].advertise()


def test_both_ends_agree_on_a_mask():
    one, other = keys.KeyPair(bytes([1]) * 32), keys.KeyPair(bytes([2]) * 32)

    assert one.mask_seed(other.public, b"s") == other.mask_seed(one.public, b"s")
    assert one.mask_seed(other.public, b"s") != one.mask_seed(other.public, b"t")
