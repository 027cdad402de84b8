"""Plugins: found by entry point, imported only when the file names them, and every misuse named."""

from __future__ import annotations

import sys

import pytest
from attrs import define

from fscore.builtin.record.resume import distributions
from fscore.builtin.tables import resolved
from fscore.builtin.trainers import SGD
from fscore.cli import main
from fscore.component import Component, ge, option
from fscore.config import resolve
from fscore.errors import ConfigError, PluginError
from fscore.hookspecs import hookimpl
from fscore.kinds.aggregator import Aggregator
from fscore.plugins import PluginHost, installed
from fscore.testing import fs_course
from fscore.testing.course import TINY, tiny_course

SOURCE = """
from __future__ import annotations
from attrs import define
from fscore.component import Component, option
from fscore.hookspecs import hookimpl
from fscore.kinds.aggregator import Aggregator

@define(eq=False)
class Zonal(Aggregator):
    name = "zonal"

@define(eq=False)
class Plugin(Component):
    name = "zones"
    level: int = option(1, doc="How deep.")

    @hookimpl
    def fscore_register_aggregators(self):
        return [Zonal]
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution with one plugin for the time of a test."""

    def put(name="zones", source=SOURCE, distribution="fs-zones"):
        module = distribution.replace("-", "_")
        monkeypatch.delitem(sys.modules, module, raising=False)
        root = tmp_path / distribution
        info = root / f"{module}-1.5.dist-info"
        info.mkdir(parents=True)
        (root / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n"
        )
        (info / "entry_points.txt").write_text(f"[fscore.plugins]\n{name} = {module}:Plugin\n")
        monkeypatch.syspath_prepend(root)

    return put


COMMAND = (
    SOURCE
    + """
    @hookimpl
    def fscore_add_commands(self):
        import click

        return [click.Command("zone", callback=lambda: click.echo("in zone"), help="Show zones.")]
"""
)


def refused(*plugins, tables=None):
    """Return the text with which loading plugins is refused."""
    with pytest.raises((PluginError, ConfigError)) as caught:
        PluginHost.load(tables or {}, plugins)
    return str(caught.value)


def plugin_with(**members):
    """Make a plugin class called 'own' with some members."""
    return define(eq=False)(
        type("Own", (Component,), {"name": "own", "__module__": __name__, **members})
    )


# ------------------------------------------------------------------------------------------------ installed


def test_an_installed_plugin_is_known_with_its_distribution(install):
    install()
    found = next(plugin for plugin in installed() if plugin.name == "zones")
    assert (found.distribution, found.version) == ("fs-zones", "1.5")


def test_no_table_no_import(install):
    install(source="raise RuntimeError('imported')")
    assert resolve(TINY).host.plugins == []
    assert "fs_zones" not in sys.modules


def test_a_table_switches_a_plugin_on(install):
    install()
    tables = {**TINY, "plugins": {"zones": {"level": 3}}, "aggregator": {"use": "zonal"}}
    config = resolve(tables)
    assert config.host.plugins[0].level == 3
    assert config.components["aggregator"].name == "zonal"
    assert resolved(config)["plugins"] == {"zones": {"level": 3}}


def test_distributions_in_use_have_their_versions(install):
    install()
    versions = distributions(PluginHost.load({"zones": {}}))
    assert versions["fs-zones"] == "1.5"
    assert {"fscore", "numpy", "torch"} < set(versions)


def test_a_component_of_a_plugin_that_is_off_says_which_table_to_add(install):
    install()
    with pytest.raises(ConfigError) as caught:
        resolve({**TINY, "aggregator": {"use": "zonal"}})
    assert str(caught.value) == (
        "aggregator.use: 'zonal' comes with the plugin 'zones', which is not switched on. "
        "Remedy: add the table [plugins.zones]."
    )


def test_a_broken_plugin_that_is_off_does_not_matter_for_an_unknown_name(install):
    install(source="raise RuntimeError('imported')")
    with pytest.raises(ConfigError) as caught:
        resolve({**TINY, "aggregator": {"use": "zonal"}})
    assert str(caught.value).startswith("aggregator.use: no aggregator is called 'zonal'")


def test_a_plugin_that_cannot_be_imported_is_named(install):
    install(source="import nothing_of_this_name")
    assert refused(tables={"zones": {}}) == (
        "plugins.zones: fs-zones cannot be imported: "
        "ModuleNotFoundError: No module named 'nothing_of_this_name'"
    )


def test_an_entry_point_that_gives_no_component_is_named(install):
    install(source="Plugin = 3")
    assert refused(tables={"zones": {}}) == (
        "plugins.zones: the entry point gives 3, expected a subclass of Component"
    )


def test_a_plugin_with_another_name_than_its_entry_point_is_named(install):
    install(name="areas")
    assert refused(tables={"areas": {}}) == (
        "plugins.areas: the plugin calls itself 'zones', expected 'areas'"
    )


def test_two_distributions_with_one_plugin_name_are_refused_when_it_is_switched_on(install):
    install()
    install(distribution="fs-zones-two")
    PluginHost.load({})
    with pytest.raises(ConfigError) as caught:
        PluginHost.load({"zones": {}})
    assert str(caught.value) in {
        f"plugins.zones: both {one} and {two} offer this plugin. Remedy: uninstall one of them."
        for one, two in (("fs-zones", "fs-zones-two"), ("fs-zones-two", "fs-zones"))
    }


@pytest.mark.parametrize("command", [("plugins",), ("options", "mlp"), ("--help",)])
def test_two_distributions_with_one_plugin_name_break_no_command(install, command, capsys):
    install()
    install(distribution="fs-zones-two")
    with pytest.raises(SystemExit) as stop:
        main(list(command))
    out, errors = capsys.readouterr()
    assert stop.value.code == 0
    assert " offer this plugin. Remedy: uninstall one of them." in out + errors


def test_an_unknown_plugin_gets_the_nearest_name(install):
    install()
    names = ", ".join(plugin.name for plugin in installed())
    assert refused(tables={"zone": {}}) == (
        f"plugins.zone: no installed plugin has this name, did you mean 'zones'? (installed: {names})"
    )


# ------------------------------------------------------------------------------------------------ options


@define(eq=False)
class WithOptions(Component):
    name = "with-options"
    depth: int = option(1, doc="How deep.", validator=ge(0))


def test_options_of_a_plugin_are_checked_like_those_of_components():
    assert refused(WithOptions, tables={"with-options": {"depth": -1, "dept": 2}}) == (
        "plugins.with-options.dept: unknown option of 'with-options', did you mean 'depth'?\n"
        "plugins.with-options.depth: must be at least 0, got -1"
    )


def test_use_is_no_option_of_a_plugin():
    assert refused(WithOptions, tables={"with-options": {"use": "x"}}) == (
        "plugins.with-options.use: unknown option of 'with-options'"
    )


def test_an_object_takes_no_options_from_the_file():
    assert refused(WithOptions(), tables={"with-options": {"depth": 2}}) == (
        "plugins.with-options: a plugin given as an object takes no options from the file. "
        "Remedy: give its class."
    )


def test_a_class_of_the_process_takes_its_options_from_the_file():
    host = PluginHost.load({"with-options": {"depth": 2}}, [WithOptions])
    assert [plugin.depth for plugin in host.plugins] == [2]


def test_two_plugins_of_one_name_are_refused():
    assert refused(WithOptions(), WithOptions()) == (
        "plugin 'with-options': two plugins of this process have this name"
    )


# ------------------------------------------------------------------------------------------------ hook methods


def test_an_undecorated_hook_method_is_refused():
    own = plugin_with(fscore_course_started=lambda self, course: None)
    assert refused(own) == "plugin 'own': fscore_course_started is not decorated with @hookimpl"


def test_a_method_named_like_no_hook_is_refused_with_the_nearest_name():
    own = plugin_with(fscore_course_start=hookimpl(lambda self, course: None))
    assert refused(own) == (
        "plugin 'own': there is no hook fscore_course_start, did you mean 'fscore_course_started'?"
    )


@pytest.mark.parametrize("asked", ["tryfirst", "trylast"])
def test_asking_for_a_place_in_the_order_is_refused(asked):
    own = plugin_with(fscore_course_started=hookimpl(lambda self, course: None, **{asked: True}))
    assert refused(own) == (
        "plugin 'own': fscore_course_started asks for tryfirst or trylast; "
        "the order of the course file counts"
    )


def test_an_argument_that_the_hook_does_not_have_is_refused():
    own = plugin_with(fscore_course_started=hookimpl(lambda self, cours: None))
    assert refused(own).startswith("plugin 'own': Plugin 'own' for hook 'fscore_course_started'")
    assert "{'cours'}" in refused(own)


def test_make_component_must_be_a_wrapper():
    own = plugin_with(fscore_make_component=hookimpl(lambda self, component: component))
    assert refused(own) == (
        "plugin 'own': fscore_make_component must be a wrapper, @hookimpl(wrapper=True)"
    )


# ------------------------------------------------------------------------------------------------ wrappers


def returns_none(self, component):
    yield


def returns_another_kind(self, component):
    yield
    return SGD()


def yields_twice(self, component):
    yield
    yield
    return component


def never_yields(self, component):
    if component is None:
        yield
    return component


def raises_before(self, component):
    raise ValueError("before")
    yield


def raises_after(self, component):
    yield
    raise ValueError("after")


MADE = "plugin 'own': fscore_make_component "
WRAPPERS = [
    (returns_none, MADE + "returned None for [aggregator], expected an instance of Aggregator"),
    (yields_twice, MADE + "yielded twice"),
    (never_yields, MADE + "never yielded"),
    (raises_before, MADE + "raised ValueError: before"),
    (raises_after, MADE + "raised ValueError: after"),
]


@pytest.mark.parametrize(("wrapper", "text"), WRAPPERS, ids=lambda v: getattr(v, "__name__", ""))
def test_wrapper_is_refused(wrapper, text):
    own = plugin_with(fscore_make_component=hookimpl(wrapper, wrapper=True))
    with pytest.raises(PluginError) as caught:
        tiny_course(plugins=[own])
    assert str(caught.value) == text


def test_a_wrapper_that_returns_another_kind_is_refused():
    own = plugin_with(fscore_make_component=hookimpl(returns_another_kind, wrapper=True))
    with pytest.raises(PluginError) as caught:
        tiny_course(plugins=[own])
    assert str(caught.value).startswith(MADE + "returned SGD(")
    assert str(caught.value).endswith("for [aggregator], expected an instance of Aggregator")


# ------------------------------------------------------------------------------------------------ registered classes


@define(eq=False)
class OwnMean(Aggregator):
    name = "mean"


@define(eq=False)
class Nameless(Aggregator):
    pass


class Undecorated(Aggregator):
    name = "undecorated"
    level: int = option(1, doc="How deep.")


def registers(*classes):
    """Make a plugin that registers classes as aggregators."""
    return plugin_with(fscore_register_aggregators=hookimpl(lambda self: list(classes)))


REGISTERED = [
    (OwnMean, "aggregators: the name 'mean' is registered by both 'own' and 'builtin'"),
    (Nameless, "plugin 'own': Nameless has no name"),
    (
        Undecorated,
        "plugin 'own': Undecorated has options but is not decorated with @define(eq=False)",
    ),
    (
        SGD,
        "plugin 'own': fscore_register_aggregators gave <class 'fscore.builtin.trainers.SGD'>, "
        "expected subclasses of Aggregator",
    ),
    (
        3,
        "plugin 'own': fscore_register_aggregators gave 3, expected subclasses of Aggregator",
    ),
]


@pytest.mark.parametrize(("cls", "text"), REGISTERED, ids=[str(cls) for cls, _ in REGISTERED])
def test_a_registered_class_is_refused(cls, text):
    assert refused(registers(cls)) == text


def test_a_register_hook_that_raises_names_plugin_and_hook():
    own = plugin_with(fscore_register_aggregators=hookimpl(lambda self: 1 // 0))
    assert refused(own) == (
        "plugin 'own': fscore_register_aggregators raised "
        "ZeroDivisionError: integer division or modulo by zero"
    )


def test_hook_specifications_that_raise_name_the_plugin():
    own = plugin_with(fscore_add_hookspecs=hookimpl(lambda self: 1 // 0))
    assert refused(own) == (
        "plugin 'own': fscore_add_hookspecs raised "
        "ZeroDivisionError: integer division or modulo by zero"
    )


def test_each_course_has_its_own_manager():
    assert fs_course().course.host.pm is not fs_course().course.host.pm


def test_a_component_of_two_plugins_names_both_and_the_distribution(install):
    install()

    @define(eq=False)
    class Zonal(Aggregator):
        name = "zonal"

    assert refused(registers(Zonal), tables={"zones": {}}) == (
        "aggregators: the name 'zonal' is registered by both 'zones' (fs-zones 1.5) and 'own'"
    )


def test_a_register_hook_that_returns_no_list_is_refused():
    own = plugin_with(fscore_register_aggregators=hookimpl(lambda self: None))
    assert refused(own) == (
        "plugin 'own': fscore_register_aggregators returned None, expected a list of classes"
    )


def test_an_event_hook_cannot_be_a_wrapper():
    def started(self, course):
        yield

    own = plugin_with(fscore_course_started=hookimpl(started, wrapper=True))
    assert refused(own) == (
        "plugin 'own': fscore_course_started cannot be a wrapper, only fscore_make_component is"
    )


@pytest.mark.parametrize("name", ["", "fscore", "builtin"])
def test_a_plugin_needs_a_name_of_its_own(name):
    own = plugin_with(name=name)
    assert refused(own) == (
        f"plugin '{name}': Own needs a name of its own, other than 'fscore' and 'builtin'"
    )


# ------------------------------------------------------------------------------------------------ commands


def test_a_plugin_adds_commands_to_the_command_line(install, capsys):
    install(source=COMMAND)
    code = exit_code(["zone"])
    assert (code, capsys.readouterr().out) == (0, "in zone\n")


def test_help_lists_the_commands_of_plugins(install, capsys):
    install(source=COMMAND)
    exit_code(["--help"])
    listed = capsys.readouterr().out.partition("Commands of plugins:\n")[2]
    assert "  zone" in listed


def test_a_broken_plugin_breaks_no_command(install, capsys):
    install(source="raise RuntimeError('no')")
    code = exit_code(["nonsense"])
    assert code == 2
    warning = "warning: plugins.zones: fs-zones cannot be imported: RuntimeError: no"
    assert warning in capsys.readouterr().err.splitlines()


def test_a_plugin_cannot_take_the_name_of_a_command(install, capsys):
    install(source=COMMAND.replace('"zone"', '"run"'))
    exit_code(["--help"])
    warning = "warning: plugin 'zones': the command 'run' is taken"
    assert warning in capsys.readouterr().err.splitlines()


def exit_code(words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    return caught.value.code


def test_a_plugin_that_exits_does_not_end_fscore_in_silence(install, capsys, tmp_path):
    install(source="import sys; sys.exit(0)")
    assert exit_code(["nonsense"]) == 2
    warning = "warning: plugins.zones: fs-zones cannot be imported: SystemExit: 0"
    assert warning in capsys.readouterr().err.splitlines()
    with pytest.raises(PluginError):
        PluginHost.load({"zones": {}})


def test_a_hook_that_exits_breaks_the_plugins_contract():
    @hookimpl
    def leave(self):
        sys.exit(0)

    with pytest.raises(PluginError) as caught:
        fs_course(plugins=[plugin_with(fscore_course_started=leave)])
    assert str(caught.value) == "plugin 'own': fscore_course_started raised SystemExit: 0"
