"""Plugins: found by entry point, imported only when the course file names them, one pluggy manager per course."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from attrs import define, evolve, field, frozen
from pluggy import PluginManager, PluginValidationError

from fscore import hookspecs
from fscore.component import Component
from fscore.errors import ConfigError, FscoreError, PluginError, nearest
from fscore.hookspecs import hookimpl
from fscore.kinds import KINDS, Kind, kind_of

GROUP = "fscore.plugins"
RIVALS = "plugins.{0.name}: both {0.distribution} and {0.rival} offer this plugin. Remedy: uninstall one of them."
KERNEL, BUILTIN = "fscore", "builtin"


@frozen
class Installed:
    """A plugin that some installed distribution offers; nothing of it is imported."""

    name: str
    distribution: str
    version: str
    entry_point: metadata.EntryPoint
    rival: str = ""
    """Another distribution that offers a plugin of this name; then neither can be switched on."""

    def load(self) -> Any:
        """Import the plugin.

        Raises:
            ConfigError: two distributions offer a plugin of this name.
            PluginError: it cannot be imported.
        """
        if self.rival:
            raise ConfigError(RIVALS.format(self))
        try:
            return self.entry_point.load()
        except (Exception, SystemExit) as error:
            text = " ".join(str(error).split())
            raise PluginError(
                f"plugins.{self.name}: {self.distribution} cannot be imported: {type(error).__name__}: {text}"
            ) from error


def installed() -> tuple[Installed, ...]:
    """Return the plugins that are installed, by name; those that two distributions offer know both."""
    found: dict[str, Installed] = {}
    for entry in metadata.entry_points(group=GROUP):
        owner = entry.dist
        name, version = (owner.name, owner.version) if owner else ("unknown", "0")
        other = found.setdefault(entry.name, Installed(entry.name, name, version, entry))
        if other.distribution != name:
            found[entry.name] = evolve(other, rival=name)
    return tuple(found[name] for name in sorted(found))


@define(eq=False)
class Registry:
    """Component classes by kind and name, and where each comes from."""

    classes: dict[tuple[str, str], tuple[type[Component], str]] = field(factory=dict)
    sources: Mapping[str, Installed] = field(factory=dict)
    """Of the plugins that come from a distribution."""

    def add(self, kind: Kind, cls: Any, origin: str) -> None:
        """Enter a component class.

        Raises:
            PluginError: it is no component of that kind, has no name, misses `@define`, or its name is taken.
        """
        if not (isinstance(cls, type) and issubclass(cls, kind.base)):
            raise PluginError(
                f"plugin '{origin}': fscore_register_{kind.plural} gave {cls!r}, expected subclasses of {kind.base.__name__}"
            )
        if not cls.name:
            raise PluginError(f"plugin '{origin}': {cls.__name__} has no name")
        _is_defined(cls, origin)
        known = self.classes.setdefault((kind.plural, cls.name), (cls, origin))
        if known != (cls, origin):
            raise PluginError(
                f"{kind.plural}: the name '{cls.name}' is registered by both "
                f"{self._source(known[1])} and {self._source(origin)}"
            )

    def _source(self, origin: str) -> str:
        found = self.sources.get(origin)
        return f"'{origin}'" + (f" ({found.distribution} {found.version})" if found else "")

    def names(self, kind: Kind) -> list[str]:
        """Return the known names of a kind."""
        return sorted(name for plural, name in self.classes if plural == kind.plural)

    def find(self, kind: Kind, name: str) -> type[Component] | None:
        """Return the class of a name, None if it is unknown."""
        return self.classes.get((kind.plural, name), (None, ""))[0]

    def providers(self, flag: str) -> list[str]:
        """Return the names of components that provide a flag."""
        return sorted(name for (_, name), (cls, _) in self.classes.items() if flag in cls.provides)


class Kernel:
    """The kernel's own implementation of hooks."""

    @hookimpl
    def fscore_make_component(self, table: str, component: Component) -> Component:
        return component


@define(eq=False)
class PluginHost:
    """The plugins of one course and its only pluggy manager."""

    pm: PluginManager
    plugins: list[Component]
    """Those switched on, in the order of the file."""
    sources: dict[str, Installed]
    registry: Registry = field(factory=Registry)

    @classmethod
    def load(
        cls,
        enabled: Mapping[str, Mapping[str, Any]],
        extra: Sequence[type[Component] | Component] = (),
        builtin: type[Component] | None = None,
    ) -> PluginHost:
        """Import and register the plugins that are switched on.

        Args:
            enabled: the tables under `[plugins]`, in the order of the file.
            extra: plugin classes or objects of this process, on even without a table.
            builtin: what the kernel offers by default; a test may give less.

        Raises:
            ConfigError, PluginError: every way in which a plugin can be misused, named.
        """
        pm = PluginManager("fscore")
        pm.add_hookspecs(hookspecs)
        plugins, sources = _instances(enabled, extra)
        host = cls(pm, plugins, sources, Registry(sources=sources))
        pm.register(Kernel(), KERNEL)
        pm.register((builtin or _builtin())(), BUILTIN)
        for plugin in plugins:
            add = getattr(plugin, "fscore_add_hookspecs", tuple)
            for specs in host._guarded(plugin.name, "fscore_add_hookspecs", add) or ():
                pm.add_hookspecs(specs)
        for plugin in reversed(plugins):  # pluggy calls the last registered first
            _check_hooks(pm, plugin)
            _enter(pm, plugin)
        _check_pending(pm)
        host._register()
        return host

    def _register(self) -> None:
        for kind in KINDS:
            hook = getattr(self.pm.hook, f"fscore_register_{kind.plural}")
            for impl in reversed(hook.get_hookimpls()):
                classes = self._guarded(impl.plugin_name, hook.name, impl.function)
                if not isinstance(classes, list | tuple):
                    raise PluginError(
                        f"plugin '{impl.plugin_name}': {hook.name} returned {classes!r}, expected a list of classes"
                    )
                for cls in classes:
                    self.registry.add(kind, cls, impl.plugin_name)

    def _guarded(self, plugin: str, hook: str, function: Any, **arguments: Any) -> Any:
        try:
            return function(**arguments)
        except (Exception, SystemExit) as error:
            error.add_note(f"in hook {hook} of plugin '{plugin}'")
            if isinstance(error, FscoreError):
                raise
            said = " ".join(str(error).split())
            text = f"plugin '{plugin}': {hook} raised {type(error).__name__}: {said}"
            raise PluginError(text) from error

    def make(self, table: str, component: Component) -> Component:
        """Return the component that is used for a table: what plugins wrap around it, in file order."""
        kind = kind_of(type(component))
        hook = self.pm.hook.fscore_make_component
        base = kind.base if kind else Component
        wrappers = [i for i in hook.get_hookimpls() if i.plugin_name not in (KERNEL, BUILTIN)]
        made = component
        for impl in wrappers:  # innermost first
            given = {"table": table, "component": component}
            generator = impl.function(**{name: given[name] for name in impl.argnames})
            name = impl.plugin_name
            made = self._guarded(
                name, hook.name, _drive, name=name, generator=generator, inner=made
            )
            if not isinstance(made, base):
                raise PluginError(
                    f"plugin '{name}': fscore_make_component returned {made!r} for [{table}], "
                    f"expected an instance of {base.__name__}"
                )
        return made

    def call(self, hook: str, **arguments: Any) -> None:
        """Call an event hook: every implementation, in the order of the file."""
        for impl in reversed(getattr(self.pm.hook, hook).get_hookimpls()):
            own = {name: arguments[name] for name in impl.argnames}
            self._guarded(impl.plugin_name, hook, impl.function, **own)

    def implements(self, hook: str) -> bool:
        """Whether any plugin implements a hook."""
        return bool(getattr(self.pm.hook, hook).get_hookimpls())


def _builtin() -> type[Component]:
    from fscore.builtin.plugin import Builtin

    return Builtin


def _instances(
    enabled: Mapping[str, Mapping[str, Any]], extra: Sequence[type[Component] | Component]
) -> tuple[list[Component], dict[str, Installed]]:
    from fscore.config import structure

    if not isinstance(enabled, Mapping):
        raise ConfigError("plugins: expected tables, [plugins.NAME]")
    given: dict[str, Any] = {}
    for own in extra:
        _is_plugin(own.name, own if isinstance(own, type) else type(own))
        if given.setdefault(own.name, own) is not own:
            raise PluginError(f"plugin '{own.name}': two plugins of this process have this name")
    known = {plugin.name: plugin for plugin in installed()}
    order = [*enabled, *(name for name in given if name not in enabled)]
    plugins, sources, problems = [], {}, []
    for name in order:
        plugin = given.get(name)
        if plugin is None and name in known:
            sources[name] = known[name]
            plugin = known[name].load()
            _is_plugin(name, plugin)
        if plugin is None:
            names = ", ".join(sorted({*known, *given})) or "none"
            problems.append(
                f"plugins.{name}: no installed plugin has this name{nearest(name, known)} (installed: {names})"
            )
        elif isinstance(plugin, type):
            found, wrong = structure(plugin, enabled.get(name, {}), f"plugins.{name}")
            problems += wrong
            plugins.append(found)
        elif enabled.get(name):
            problems.append(
                f"plugins.{name}: a plugin given as an object takes no options from the file. Remedy: give its class."
            )
        else:
            plugins.append(plugin)
    if problems:
        raise ConfigError(problems)
    return plugins, sources


def _is_plugin(name: str, plugin: Any) -> None:
    if not (isinstance(plugin, type) and issubclass(plugin, Component)):
        raise PluginError(
            f"plugins.{name}: the entry point gives {plugin!r}, expected a subclass of Component"
        )
    if plugin.name != name:
        raise PluginError(
            f"plugins.{name}: the plugin calls itself '{plugin.name}', expected '{name}'"
        )
    if not name or name in (KERNEL, BUILTIN):
        raise PluginError(
            f"plugin '{name}': {plugin.__name__} needs a name of its own, other than '{KERNEL}' and '{BUILTIN}'"
        )
    _is_defined(plugin, name)


def _is_defined(cls: type[Component], origin: str) -> None:
    """Refuse options that attrs has not made fields of, because `@define` is missing."""
    for base in cls.__mro__:
        if any(type(value).__name__ == "_CountingAttr" for value in vars(base).values()):
            raise PluginError(
                f"plugin '{origin}': {base.__name__} has options but is not decorated with @define(eq=False)"
            )


def _enter(pm: PluginManager, plugin: Component) -> None:
    try:
        pm.register(plugin, plugin.name)
    except PluginValidationError as error:
        text = " ".join(str(error).split())
        raise PluginError(f"plugin '{plugin.name}': {text}") from error


def _drive(name: str, generator: Any, inner: Component) -> Any:
    """Run a wrapper, which yields once; return what it returns."""
    try:
        next(generator)
    except StopIteration:
        raise PluginError(f"plugin '{name}': fscore_make_component never yielded") from None
    try:
        generator.send(inner)
    except StopIteration as stop:
        return stop.value
    raise PluginError(f"plugin '{name}': fscore_make_component yielded twice")


def _check_hooks(pm: PluginManager, plugin: Component) -> None:
    """Refuse hook methods that pluggy would ignore or order by itself."""
    names = [name for name in dir(type(plugin)) if name.startswith("fscore_")]
    known = [name for name in dir(pm.hook) if name.startswith("fscore_")]
    for name in names:
        marks = getattr(getattr(type(plugin), name), "fscore_impl", None)
        if marks is None:
            raise PluginError(f"plugin '{plugin.name}': {name} is not decorated with @hookimpl")
        if name not in known:
            raise PluginError(
                f"plugin '{plugin.name}': there is no hook {name}{nearest(name, known)}"
            )
        if marks["tryfirst"] or marks["trylast"]:
            raise PluginError(
                f"plugin '{plugin.name}': {name} asks for tryfirst or trylast; the order of the course file counts"
            )
        if name == "fscore_make_component" and not marks["wrapper"]:
            raise PluginError(
                f"plugin '{plugin.name}': {name} must be a wrapper, @hookimpl(wrapper=True)"
            )
        if name != "fscore_make_component" and (marks["wrapper"] or marks["hookwrapper"]):
            raise PluginError(
                f"plugin '{plugin.name}': {name} cannot be a wrapper, only fscore_make_component is"
            )


def _check_pending(pm: PluginManager) -> None:
    """Refuse what is decorated under another name and implements no hook."""
    try:
        pm.check_pending()
    except PluginValidationError as error:
        raise PluginError(f"plugin '{pm.get_name(error.plugin)}': {error}") from error
