"""The composition check: needs, provides, removes, and the exact words of every refusal."""

from __future__ import annotations

from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from fscore.component import Component, option
from fscore.compose import FLAGS, violations


@define(eq=False)
class Plain(Component):
    name = "plain"


@define(eq=False)
class Krum(Component):
    name = "krum"
    needs = frozenset({"individual_updates"})


@define(eq=False)
class Secagg(Component):
    name = "secagg"
    provides = frozenset({"closed_cohort"})
    removes = frozenset({"individual_updates", "plain_metrics"})


@define(eq=False)
class Shuffler(Component):
    name = "shuffler"
    removes = frozenset({"individual_updates"})


@define(eq=False)
class Ring(Component):
    name = "ring"
    needs = frozenset({"closed_cohort"})


@define(eq=False)
class Optional(Component):
    name = "optional"
    strict: bool = option(False, doc="Whether single updates are needed.")

    def flags(self):
        needs = frozenset({"individual_updates"}) if self.strict else frozenset()
        return needs, self.provides, self.removes


AGGREGATOR, PRIVACY, ATTACK = "[aggregator]", "[[privacy]]", "[[attack]]"


def test_components_that_need_nothing_meet():
    assert violations([(AGGREGATOR, Plain()), (PRIVACY, Secagg())]) == []


def test_a_plain_course_has_individual_updates():
    assert violations([(AGGREGATOR, Krum())]) == []


def test_a_need_that_another_component_takes_away_names_both():
    assert violations([(AGGREGATOR, Krum()), (PRIVACY, Secagg())]) == [
        "E-COMPAT: [aggregator] 'krum' needs individual updates, but [[privacy]] 'secagg' takes that away. "
        "Remedy: switch one of them off."
    ]


def test_the_order_of_the_file_does_not_matter():
    owners = [(AGGREGATOR, Krum()), (PRIVACY, Secagg())]
    assert violations(reversed(owners)) == violations(owners)


def test_every_component_in_the_way_gets_its_line():
    owners = [(AGGREGATOR, Krum()), (PRIVACY, Secagg()), (ATTACK, Shuffler())]
    assert violations(owners) == [
        "E-COMPAT: [aggregator] 'krum' needs individual updates, but [[privacy]] 'secagg' takes that away. "
        "Remedy: switch one of them off.",
        "E-COMPAT: [aggregator] 'krum' needs individual updates, but [[attack]] 'shuffler' takes that away. "
        "Remedy: switch one of them off.",
    ]


def test_a_need_that_nobody_provides_names_the_flag():
    assert violations([(PRIVACY, Ring())]) == [
        "E-COMPAT: [[privacy]] 'ring' needs closed cohort, but nothing in this course provides it. "
        "Remedy: add what provides 'closed_cohort', or switch 'ring' off."
    ]


def test_the_remedy_lists_known_components_that_provide_the_flag():
    offered = {"closed_cohort": ["secagg", "waves"]}
    assert violations([(PRIVACY, Ring())], offered.__getitem__) == [
        "E-COMPAT: [[privacy]] 'ring' needs closed cohort, but nothing in this course provides it. "
        "Remedy: add 'secagg' or 'waves', or switch 'ring' off."
    ]


def test_a_component_may_provide_what_another_needs():
    assert violations([(PRIVACY, Ring()), (PRIVACY, Secagg())]) == []


def test_all_violations_come_at_once():
    owners = [(AGGREGATOR, Krum()), (ATTACK, Ring()), (PRIVACY, Shuffler())]
    assert [line.split(",")[0] for line in violations(owners)] == [
        "E-COMPAT: [aggregator] 'krum' needs individual updates",
        "E-COMPAT: [[attack]] 'ring' needs closed cohort",
    ]


def test_flags_may_depend_on_options():
    found = [
        len(violations([(AGGREGATOR, Optional(strict=strict)), (PRIVACY, Shuffler())]))
        for strict in (False, True)
    ]
    assert found == [0, 1]


@define(eq=False)
class Random(Component):
    name = "random"
    wanted: list[str] = option(factory=list, doc="Needs.")
    given: list[str] = option(factory=list, doc="Provides.")
    taken: list[str] = option(factory=list, doc="Removes.")

    def flags(self):
        return frozenset(self.wanted), frozenset(self.given), frozenset(self.taken)


names = st.lists(st.sampled_from([*FLAGS, "closed_cohort", "invented"]), max_size=4)
components = st.lists(st.builds(Random, wanted=names, given=names, taken=names), max_size=5)


@given(components)
def test_there_are_no_violations_exactly_where_every_need_holds(course):
    wanted = {flag for one in course for flag in one.wanted}
    held = set(FLAGS) | {flag for one in course for flag in one.given}
    held -= {flag for one in course for flag in one.taken}
    assert (violations([("[x]", one) for one in course]) == []) == (wanted <= held)
