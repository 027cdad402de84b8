"""Key exchange before the work, and unmasking after it, as handlers of a course in rounds.

TaskDown -> KeysUp -> KeysDown -> SharesUp -> SharesDown -> work -> ResultUp
CohortReady -> (SurvivorsDown -> SignatureUp ->) RequestDown -> AnswerUp -> CohortClosed | CohortFailed
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import define

from fs_secagg.client import Client
from fs_secagg.mechanism import SecAgg
from fs_secagg.messages import (
    AnswerUp,
    KeysDown,
    KeysUp,
    Refused,
    RequestDown,
    SharesDown,
    SharesUp,
    SignatureUp,
    StepOver,
    SurvivorsDown,
    ToClient,
    ToServer,
    down,
    up,
)
from fs_secagg.server import Server
from fs_secagg.sessions import SessionServer
from fs_secagg.summing import Key
from fs_secagg.transcript import computable_sums
from fs_secagg.wire import ProtocolError
from fscore.builtin.rounds import (
    CohortClosed,
    CohortFailed,
    CohortReady,
    Computed,
    PoolChanged,
    ResultUp,
    RoundsClients,
    TaskDown,
    TasksDue,
)
from fscore.events import Bundle, TaskLost
from fscore.participant import handles
from fscore.tasks import Task

ON = (KeysDown, SharesDown, RequestDown, StepOver, CohortClosed, CohortFailed, PoolChanged)
"""What the server may emit when a step of a session ends."""


@define(eq=False, slots=False)
class SecAggServer(SessionServer):
    """The server's side: it passes keys and shares on, and opens sums."""

    name = "secagg"
    mechanism: SecAgg

    @handles(TasksDue, emits=(StepOver, CohortFailed), rank=60)
    def begin(self, event: TasksDue) -> None:
        """Group the tasks that were just issued into sessions."""
        self.begin_all()

    def begin_session(self, key: Key) -> None:
        try:
            self.mechanism.begin(key)
        except ProtocolError as error:
            self.abort(key, f"its session ended: {error}")
        else:
            self._enter(key, "keys")

    def _enter(self, key: Key, step: str) -> None:
        """Begin a step, and set a timer for its end."""
        self.mechanism.sessions[key]["step"] = step
        self.emit(StepOver(key, step), after=self.mechanism.step_timeout)

    # ------------------------------------------------------------------------ what happens

    @handles(ToServer, emits=(*ON, Refused))
    def hear(self, event: ToServer) -> None:
        """Take what a client sent; what comes late or twice is ignored, and one that sends nonsense is out."""
        key = self.mechanism.find(event.wave, event.sender)
        if key is None or self.mechanism.sessions[key]["step"] != event.step:
            return
        server = self.mechanism.server(key)
        if not server.awaits(event.sender):
            return
        try:
            server.hear(event.sender, event.body)
        except ProtocolError as error:
            self.emit(Refused(self.mechanism.sessions[key]["tasks"][event.sender], str(error)))
        else:
            self._go_on(key)

    @handles(Refused, emits=(*ON, TaskLost))
    def refuse(self, event: Refused) -> None:
        """Go on without a client that is out: its task is lost, unless its vector has come already."""
        if self.course.book.flies(event.task.id):
            self.emit(TaskLost(event.task, event.reason))
        else:
            self._without(event.task)

    @handles(TaskLost, emits=ON, rank=60)
    def lose(self, event: TaskLost) -> None:
        """Wait no longer for a client whose task was just lost; a deadline says nothing of a result that came."""
        if all(task.id != event.task.id for task in self.course.book.unresolved()):
            self._without(event.task)

    def _without(self, task: Task) -> None:
        found = self.live(task)
        if found is not None:
            found[1]["gone"].append(task.client)
            self._go_on(found[0])

    @handles(StepOver, emits=ON)
    def give_up(self, event: StepOver) -> None:
        """Go on without those who have not answered in time."""
        session = self.mechanism.sessions.get(event.session)
        if session is not None and session["step"] == event.step:
            self._close(event.session)

    def _go_on(self, key: Key) -> None:
        """End the step of a session when nobody is waited for."""
        session = self.mechanism.sessions[key]
        if session["step"] in self.CLOSE and not self._waits(key, session):
            self._close(key)

    def _waits(self, key: Key, session: dict[str, Any]) -> bool:
        """Whether a message of this step can still come."""
        flies, tasks, gone = self.course.book.flies, session["tasks"], session["gone"]
        before = session["step"] in ("keys", "shares")
        there = (u for u in self.mechanism.server(key).expected() if u not in gone)
        return any(flies(tasks[u].id) or not before for u in there)

    # ------------------------------------------------------------------------ steps

    def _close(self, key: Key) -> None:
        step = self.mechanism.sessions[key]["step"]
        try:
            self.CLOSE[step](self, key, self.mechanism.server(key))
        except ProtocolError as error:
            self.abort(key, f"its session ended: {error}")

    def _close_keys(self, key: Key, server: Server) -> None:
        self._fail_silent(key, server, "keys")
        self._ask_all(key, KeysDown, server.close_keys())
        self._enter(key, "shares")

    def _close_shares(self, key: Key, server: Server) -> None:
        self._fail_silent(key, server, "shares")
        self._ask_all(key, SharesDown, server.close_shares())
        self.mechanism.sessions[key]["step"] = "vectors"
        self.emit(PoolChanged())

    def _fail_silent(self, key: Key, server: Server, what: str) -> None:
        """Name those who sent nothing in time."""
        tasks = self.mechanism.sessions[key]["tasks"]
        for client in list(server.expected()):
            if self.course.book.flies(tasks[client].id):
                reason = f"it sent no {what} in time"
                self.note(tasks[client], reason)
                self.course.fail(tasks[client], reason)

    def _close_signatures(self, key: Key, server: Server) -> None:
        self._ask_all(key, RequestDown, server.close_signatures())
        self._enter(key, "answers")

    def _close_answers(self, key: Key, server: Server) -> None:
        self.mechanism.open(key)
        session = self.mechanism.sessions[key]
        session["step"] = "opened"
        self.emit(CohortClosed(session["cohort"]))

    CLOSE: ClassVar[Mapping[str, Any]] = {
        "keys": _close_keys,
        "shares": _close_shares,
        "signatures": _close_signatures,
        "answers": _close_answers,
    }

    def _ask_all(self, key: Key, cls: type[ToClient], bodies: Mapping[int, bytes]) -> None:
        tasks: dict[int, Task] = self.mechanism.sessions[key]["tasks"]
        for client, body in bodies.items():
            self.send(down(cls, tasks[client], body))

    # ------------------------------------------------------------------------ the sum

    @handles(
        CohortReady,
        emits=(SurvivorsDown, RequestDown, StepOver, CohortFailed),
        replaces="rounds.open",
    )
    def open(self, event: CohortReady) -> None:
        """Open a cohort's masked vectors, and ask its clients for what opens their sum."""
        cohort = self.whole(event.cohort)
        key = self.mechanism.key_of(cohort.tasks[0]) if cohort else None
        if cohort is None or key is None:
            return
        try:
            bodies = self._closed(self.mechanism.server(key), [t.client for t in cohort.tasks])
        except ProtocolError as error:
            self.abort(key, f"its session ended: {error}")
            return
        malicious = self.mechanism.malicious
        self._ask_all(key, SurvivorsDown if malicious else RequestDown, bodies)
        self._enter(key, "signatures" if malicious else "answers")

    @staticmethod
    def _closed(server: Server, alive: list[int]) -> Mapping[int, bytes]:
        """Fix whose vectors are summed, unless more than their sum would come out, whoever else's vector arrived."""
        bodies = server.close_vectors(alive)
        sums = computable_sums(server, server.memory["sealed"], answering=alive)
        if sums != [tuple(server.alive)]:
            raise ProtocolError(
                f"the sum of {len(sums[0])} of its {len(alive)} clients could be computed"
            )
        return bodies


@define(eq=False, slots=False)
class SecAggClients(RoundsClients):
    """All clients: they agree on masks before they work, and open the sum after it."""

    name = "secagg_clients"
    mechanism: SecAgg

    @handles(TaskDown, emits=(KeysUp,), replaces="clients.train", bundled=True)
    def train(self, events: Bundle) -> None:
        """Advertise keys; the work begins when shares have come."""
        for task in events["task"]:
            met = (task.wave, task.client) in self.mechanism.clients
            if self.course.book.flies(task.id) and not met:
                self.send(up(KeysUp, task, self.mechanism.meet(task).advertise()))

    @handles(KeysDown, emits=(SharesUp, Refused))
    def share(self, event: KeysDown) -> None:
        """Share the secrets of this session among the neighbours."""
        self._answer(event, SharesUp, "share")

    @handles(SharesDown, emits=(Computed, TaskLost, Refused))
    def work(self, event: SharesDown) -> None:
        """Take the neighbours' shares, fix the masks, and begin to work."""
        found = self._found(event, "receive")
        if found is None:
            return
        task, client = found
        try:
            client.receive(event.body)
            client.mask()
        except ProtocolError as error:
            self.emit(Refused(task, f"it refused: {error}"))
        else:
            super().train(Bundle.of(TaskDown(event.sender, event.receiver, task)))

    @handles(SurvivorsDown, emits=(SignatureUp, Refused))
    def agree_on(self, event: SurvivorsDown) -> None:
        """Sign whose vectors are summed."""
        self._answer(event, SignatureUp, "agree_on")

    @handles(RequestDown, emits=(AnswerUp, Refused))
    def unmask(self, event: RequestDown) -> None:
        """Give a share of one secret of each neighbour."""
        self._answer(event, AnswerUp, "unmask")

    @handles(Computed, emits=(ResultUp,), replaces="clients.report", bundled=True)
    def report(self, events: Bundle) -> None:
        """Send the masked vectors, but for tasks that the server gave up."""
        super().report(events)

    def _found(self, event: ToClient, request: str) -> tuple[Task, Client] | None:
        """Return the task and the client that a message is about; None: it is of another session, or came twice."""
        known = self.mechanism.clients.get((event.wave, event.receiver))
        task: Task | None = known["task"] if known else None
        if task is None or task.id != event.result.task:
            return None
        client = self.mechanism.client(task.wave, task.client)
        return (task, client) if client.awaits(request) else None

    def _answer(self, event: ToClient, cls: type[ToServer], request: str) -> None:
        found = self._found(event, request)
        if found is None:
            return
        task, client = found
        try:
            body = getattr(client, request)(event.body)
        except ProtocolError as error:
            self.emit(Refused(task, f"it refused: {error}"))
        else:
            self.send(up(cls, task, body))
