"""Protocols: who does what, when."""

from __future__ import annotations

from typing import ClassVar

from attrs import define

from fscore.component import Component


@define(eq=False, slots=False)
class Protocol(Component):
    """The course's handlers; `[protocol] use = "..."`.

    `participants()` returns the handlers of the server, of the clients, or of both. A protocol raises `Ending` when the
    course is over.
    """

    tables: ClassVar[frozenset[str]] = frozenset()
    """Tables of the course file that this protocol reads, of sampler, trigger, aggregator, server_optimizer; a file that
    has another of these is an error."""
