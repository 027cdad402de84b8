"""The suite for stores of client rows."""

# ruff: noqa: S101
from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import SkipTest

import tomli

from fscore.builtin.record.snapshot import Codec
from fscore.config import Tables
from fscore.course import Course
from fscore.errors import ConfigError, PluginError, SnapshotError
from fscore.params import Group, Layout, Tensors
from fscore.testing.contracts.base import ComponentContract, same
from fscore.testing.course import tiny_course

LAYOUT: Layout = {
    "vector": Group((5,)),
    "count": Group((), "int64"),
    "matrix": Group((2, 3), "float64"),
}
"""Of the rows that the tests store."""
KEEPING: Tables = {
    "model": {"use": "mlp", "hidden": [4]},
    "trainer": {"use": "sgd", "private": ["linear"]},
}
"""Tables of a course whose clients keep a part of the model."""


class StoreContract(ComponentContract):
    """For stores. One that removes `stateful_clients` keeps nothing, and refuses a course that would."""

    def setup_method(self) -> None:
        """Make a folder for what is written."""
        self._made = TemporaryDirectory()
        self._runs = 0

    def teardown_method(self) -> None:
        """Remove it."""
        self._made.cleanup()

    @property
    def folder(self) -> Path:
        """A folder of the test's own."""
        return Path(self._made.name)

    @property
    def keeps(self) -> bool:
        """Whether it keeps rows at all."""
        return "stateful_clients" not in self.make().flags()[2]

    def course(self, **changes: Any) -> Course:
        """Return a tiny course with the component in its place, with clients that keep something if it does."""
        tables = {**(KEEPING if self.keeps else {}), **tomli.loads(self.toml)}
        self._runs += 1
        out = self.folder / f"run-{self._runs}"
        return tiny_course(tables, given={"store": self.make()}, changes=changes, out=out)

    def opened(self, folder: str = "rows") -> Any:
        """Return a store of rows of `LAYOUT`; it is skipped where nothing is kept."""
        if not self.keeps:
            raise SkipTest("it keeps nothing")
        made = self.make()
        made.open(LAYOUT, row(0), self._place(folder))
        return made

    def _place(self, folder: str) -> Path:
        place = self.folder / folder
        place.mkdir(exist_ok=True)
        return place

    # ------------------------------------------------------------------------ in a course

    def test_clients_that_keep_something(self) -> None:
        if self.keeps:
            course = self.course()
            self.finished(course)
            assert course.store.clients()
            return
        assert raises(ConfigError, lambda: tiny_course(KEEPING, given={"store": self.make()}))

    def test_a_snapshot_in_the_middle_changes_nothing(self) -> None:
        """A resumed run has the rows that its snapshot knew, in the folder of the run that went on."""
        if not self.keeps:
            super().test_a_snapshot_in_the_middle_changes_nothing()
            return
        first, second = self.opened(), None
        first.put(3, row(3))
        mark = plain(first.mark())
        first.put(3, row(4))
        first.put(6, row(6))
        first.close()
        second = self.opened()
        second.restore(mark)
        assert second.clients() == [3]
        assert same(second.get(3), row(3))

    # ------------------------------------------------------------------------ rows

    def test_a_client_without_a_row_has_the_first(self) -> None:
        store = self.opened()
        assert same(store.get(7), row(0))
        assert store.clients() == []

    def test_a_row_comes_back_to_the_bit(self) -> None:
        store = self.opened()
        for client in (9, 2, 2**40):
            store.put(client, row(client % 97))
        for client in (9, 2, 2**40):
            assert same(store.get(client), row(client % 97))
        assert store.clients() == [2, 9, 2**40]

    def test_names_that_are_left_out_keep_their_values(self) -> None:
        store = self.opened()
        store.put(1, row(1))
        store.put(1, {"vector": row(2)["vector"]})
        assert same(store.get(1), {**row(1), "vector": row(2)["vector"]})

    def test_rows_are_copies(self) -> None:
        store, given = self.opened(), row(1)
        store.put(1, given)
        given["vector"].zero_()
        store.get(1)["matrix"].zero_()
        store.get(8)["vector"].fill_(9)
        assert same(store.get(1), row(1))
        assert same(store.get(8), row(0))

    def test_the_last_of_many_rows_holds(self) -> None:
        """Compared with a dictionary."""
        store, expected = self.opened(), {}
        for i in range(60):
            client = i * i % 11
            store.put(client, row(i))
            expected[client] = row(i)
        assert store.clients() == sorted(expected)
        assert all(same(store.get(client), own) for client, own in expected.items())

    def test_rows_of_another_form_are_refused(self) -> None:
        import torch

        store = self.opened()
        store.put(1, row(1))
        wrong = (
            {"vektor": torch.zeros(5)},
            {"vector": torch.zeros(4)},
            {"vector": torch.zeros(5, dtype=torch.float64)},
        )
        for bad in wrong:
            assert raises(PluginError, lambda bad=bad: store.put(1, bad))
        assert same(store.get(1), row(1))

    def test_a_first_row_of_another_form_is_refused(self) -> None:
        import torch

        if not self.keeps:
            raise SkipTest("it keeps nothing")
        for bad in ({"vector": torch.zeros(5)}, {**row(0), "count": torch.zeros(())}):
            place = self._place("bad")
            assert raises(
                PluginError, lambda bad=bad, place=place: self.make().open(LAYOUT, bad, place)
            )

    # ------------------------------------------------------------------------ marks

    def test_a_mark_is_gone_back_to(self) -> None:
        store = self.opened()
        store.put(1, row(1))
        mark = plain(store.mark())
        for i in range(20):
            store.put(i, row(50 + i))
        store.restore(mark)
        assert store.clients() == [1]
        assert same(store.get(1), row(1))
        assert same(store.get(2), row(0))

    def test_rows_change_again_after_going_back(self) -> None:
        store = self.opened()
        store.put(1, row(1))
        mark = plain(store.mark())
        store.put(1, row(2))
        store.restore(mark)
        store.put(4, row(4))
        assert same(store.get(1), row(1))
        assert same(store.get(4), row(4))

    def test_the_mark_of_an_empty_store(self) -> None:
        store = self.opened()
        mark = plain(store.mark())
        store.put(1, row(1))
        store.restore(mark)
        assert store.clients() == []

    def test_a_mark_of_other_rows_is_refused_and_changes_nothing(self) -> None:
        store = self.opened()
        store.put(1, row(1))
        other = self.make()
        layout = {"vector": Group((6,))}
        import torch

        other.open(layout, {"vector": torch.zeros(6)}, self._place("other"))
        other.put(5, {"vector": torch.ones(6)})
        mark = plain(other.mark())
        assert raises(SnapshotError, lambda: store.restore(mark))
        assert same(store.get(1), row(1))
        assert store.clients() == [1]


def row(seed: int) -> Tensors:
    """Return a row of `LAYOUT`."""
    import torch

    numbers = torch.Generator().manual_seed(seed)
    return {
        "vector": torch.randn(5, generator=numbers),
        "count": torch.tensor(seed, dtype=torch.int64),
        "matrix": torch.randn(2, 3, generator=numbers, dtype=torch.float64),
    }


def plain(mark: Any) -> Any:
    """Return a mark as a snapshot gives it back."""
    coder = Codec([])
    return coder.decode(*coder.encode(mark))


def raises(expected: type[Exception], call: Any) -> bool:
    """Whether a call raises an error of a class; any other goes on."""
    try:
        call()
    except expected:
        return True
    return False


__all__ = ["StoreContract"]
