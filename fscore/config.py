"""From a TOML file to components: strict, and with every problem of the file at once."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import attrs
from attrs import define, frozen

from fscore.component import Component, Scalar, options_of
from fscore.errors import ConfigError, PluginError, nearest
from fscore.kinds import KINDS, Kind, kind_at, kind_of
from fscore.plugins import PluginHost, installed
from fscore.settings import SETTINGS, CourseSettings, RecordSettings, Settings

Problems = list[str]
Tables = dict[str, Any]
OTHER_TABLES = ("plugins", "override")


@frozen
class Override:
    """Options of some clients that differ from the file's."""

    clients: tuple[int, ...]
    values: dict[str, Scalar]
    """By dotted key."""


# ------------------------------------------------------------------------------------------------ values


def structure(
    cls: type[Any], table: Any, key: str, host: PluginHost | None = None
) -> tuple[Any, Problems]:
    """Make an instance of a class with options from a table; return it (or None) and the problems."""
    if not isinstance(table, Mapping):
        return None, [f"{key}: expected a table, got {_named(table)}"]
    problems: Problems = []
    values: dict[str, Any] = {}
    fields = {a.name: a for a in options_of(cls)}
    label = f"'{cls.name}'" if issubclass(cls, Component) else f"[{key}]"
    for name in table:
        if name not in fields:
            problems.append(f"{key}.{name}: unknown option of {label}{nearest(name, fields)}")
    for name, attribute in fields.items():
        if name in table:
            value, wrong = structure_option(cls, name, table[name], f"{key}.{name}", host)
            problems += wrong
            values[name] = value
        elif attribute.default is attrs.NOTHING:
            problems.append(f"{key}.{name}: missing; {label} needs it. {attribute.metadata['doc']}")
    if problems:
        return None, problems
    try:
        return cls(**values), []
    except ConfigError as error:
        return None, list(error.problems)
    except (ValueError, TypeError) as error:
        return None, [f"{key}: {error}"]


def structure_option(
    cls: type[Any], name: str, value: Any, key: str, host: PluginHost | None = None
) -> tuple[Any, Problems]:
    """Check one option's value against its type and validator; return what is stored and the problems."""
    attribute = next(a for a in options_of(cls) if a.name == name)
    result, problems = _typed(hint_of(cls, name), value, key, host)
    if not problems and attribute.validator is not None:
        try:
            attribute.validator(None, attribute, result)
        except (ValueError, TypeError) as error:
            problems = [f"{key}: {error}"]
    return result, problems


def hint_of(cls: type[Any], name: str) -> Any:
    """Return the type of an option, resolved where its class is defined."""
    for base in cls.__mro__:
        text = vars(base).get("__annotations__", {}).get(name)
        if text is not None:
            space = types.SimpleNamespace(__annotations__={name: text})
            try:
                return typing.get_type_hints(space, vars(sys.modules[base.__module__]))[name]
            except NameError as error:
                raise PluginError(
                    f"{cls.__name__}.{name}: the type of an option must be imported at run time: {error}"
                ) from error
    raise PluginError(f"{cls.__name__}.{name}: an option needs a type")


def _typed(hint: Any, value: Any, key: str, host: PluginHost | None) -> tuple[Any, Problems]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value, []
    if origin in (typing.Union, types.UnionType):
        return _any_of(arguments, value, key, host)
    if origin is Literal:
        if value in arguments and type(value) in {type(a) for a in arguments}:
            return value, []
        choices = ", ".join(repr(a) for a in arguments)
        hint_text = nearest(value, [str(a) for a in arguments]) if isinstance(value, str) else ""
        return None, [f"{key}: expected one of {choices}, got {_named(value)}{hint_text}"]
    if origin in (list, dict):
        return _container(origin, arguments, value, key, host)
    if isinstance(hint, type) and issubclass(hint, Settings):
        return structure(hint, value, key)
    if isinstance(hint, type) and issubclass(hint, Component):
        return _nested(hint, value, key, host)
    return _scalar(hint, value, key)


def _any_of(
    hints: Sequence[Any], value: Any, key: str, host: PluginHost | None
) -> tuple[Any, Problems]:
    if value is None and type(None) in hints:
        return None, []
    arms = [h for h in hints if h is not type(None)]
    if len(arms) == 1:
        return _typed(arms[0], value, key, host)
    exact = [h for h in arms if isinstance(h, type) and type(value) is h]
    tried = [_typed(hint, value, key, host) for hint in exact or arms]
    for result, problems in tried:
        if not problems:
            return result, []
    if inside := next((p for _, p in tried if not p[0].startswith(f"{key}: ")), None):
        return None, inside
    texts = [p[0].partition(": expected ")[2].partition(", got ") for _, p in tried]
    return None, [f"{key}: expected {' or '.join(t[0] for t in texts)}, got {texts[-1][2]}"]


def _container(
    origin: Any, arguments: Sequence[Any], value: Any, key: str, host: PluginHost | None
) -> tuple[Any, Problems]:
    if not isinstance(value, origin):
        return None, [f"{key}: expected {_TYPE_NAMES[origin]}, got {_named(value)}"]
    pairs = list(enumerate(value)) if origin is list else list(value.items())
    made = [(k, *_typed(arguments[-1], v, f"{key}.{k}", host)) for k, v in pairs]
    problems = [line for _, _, wrong in made for line in wrong]
    return ([v for _, v, _ in made] if origin is list else {k: v for k, v, _ in made}), problems


_TYPE_NAMES: dict[Any, str] = {
    int: "an integer", float: "a number", bool: "true or false", str: "a string", list: "a list", dict: "a table",
}  # fmt: skip


def type_name(hint: Any) -> str:
    """Return how messages say a type: `an integer`, `a number`."""
    return _TYPE_NAMES.get(hint, str(hint))


def _scalar(hint: Any, value: Any, key: str) -> tuple[Any, Problems]:
    if type(value) is hint:
        return value, []
    if hint is float and type(value) is int:
        return float(value), []
    return None, [f"{key}: expected {_TYPE_NAMES.get(hint, str(hint))}, got {_named(value)}"]


def _named(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the string '{value}'"
    return _TYPE_NAMES[type(value)] if isinstance(value, list | dict) else f"{value!r}"


# ------------------------------------------------------------------------------------------------ components


def _nested(
    base: type[Component], value: Any, key: str, host: PluginHost | None
) -> tuple[Any, Problems]:
    if isinstance(value, base):
        return value, []
    kind = kind_of(base)
    if kind is None or host is None:
        return None, [f"{key}: no component can be chosen here"]
    return component(kind, {"use": value} if isinstance(value, str) else value, key, host)


def component(kind: Kind, table: Any, key: str, host: PluginHost) -> tuple[Any, Problems]:
    """Make the component that a table chooses by `use`."""
    if not isinstance(table, Mapping):
        return None, [f"{key}: expected a table, got {_named(table)}"]
    name = table.get("use", kind.default)
    if not isinstance(name, str):
        return None, [f"{key}.use: expected a string, got {_named(name)}"]
    if not name:
        known = ", ".join(host.registry.names(kind)) or "none"
        return None, [f"{key}.use: missing; choose one of {known}"]
    cls = host.registry.find(kind, name)
    if cls is None:
        return None, [_unknown(kind, name, f"{key}.use", host)]
    return structure(cls, {n: v for n, v in table.items() if n != "use"}, key, host)


def _unknown(kind: Kind, name: str, key: str, host: PluginHost) -> str:
    on = {plugin.name for plugin in host.plugins}
    for plugin in installed():
        if plugin.name not in on and _offers(plugin, kind, name):
            return (
                f"{key}: '{name}' comes with the plugin '{plugin.name}', which is not switched on. "
                f"Remedy: add the table [plugins.{plugin.name}]."
            )
    names = host.registry.names(kind)
    return f"{key}: no {kind.table or kind.base.__name__.lower()} is called '{name}'{nearest(name, names)} (known: {', '.join(names) or 'none'})"


def _offers(plugin: Any, kind: Kind, name: str) -> bool:
    try:
        register = getattr(plugin.load(), f"fscore_register_{kind.plural}", None)
        return register is not None and name in {cls.name for cls in register(None)}
    except (Exception, SystemExit):  # only a hint: a broken plugin that is off must not matter
        return False


@define(eq=False)
class Config:
    """A resolved course file."""

    tables: Tables
    course: CourseSettings
    record: RecordSettings
    components: dict[str, Component]
    """By table; those of arrays by table and place, `privacy.0`."""
    overrides: tuple[Override, ...]
    host: PluginHost

    def make(self, base: type[Component], value: Any, key: str) -> Any:
        """Make a component of the kind `base` of a name or a table, as an option of that type would be made.

        Raises:
            ConfigError: naming `key`.
        """
        made, problems = _nested(base, value, key, self.host)
        if problems:
            raise ConfigError(problems)
        return made


def resolve(
    tables: Tables,
    *,
    plugins: Sequence[type[Component] | Component] = (),
    given: Mapping[str, Component] | None = None,
    builtin: type[Component] | None = None,
) -> Config:
    """Turn tables into a configuration.

    Args:
        tables: what a course file holds.
        plugins: plugin classes or objects of this process.
        given: components made in this process, by table; they stand in for the table of the file.

    Raises:
        ConfigError: with every problem of the tables.
    """
    given = dict(given or {})
    problems = [*_unknown_tables(tables), *_given_problems(given)]
    settings: dict[str, Any] = {}
    for name, cls in SETTINGS.items():
        settings[name], wrong = structure(cls, tables.get(name, {}), name)
        problems += wrong
    try:
        host = PluginHost.load(tables.get("plugins", {}), plugins, builtin)
    except ConfigError as error:  # no component can be judged without the plugins
        raise ConfigError([*error.problems, *problems]) from error
    components = dict(_all_components(tables, given, host, problems))
    overrides = _overrides(tables.get("override", []), components, problems)
    if problems:
        raise ConfigError(problems)
    return Config(tables, **settings, components=components, overrides=overrides, host=host)


def _unknown_tables(tables: Tables) -> Problems:
    known = [*SETTINGS, *OTHER_TABLES, *(kind.table for kind in KINDS if kind.table)]
    return [f"{name}: unknown table{nearest(name, known)}" for name in tables if name not in known]


def _given_problems(given: Mapping[str, Component]) -> Problems:
    known = {kind.table: kind for kind in KINDS if kind.table}
    lines = []
    for name, made in given.items():
        table, _, place = name.partition(".")
        if table not in known or known[table].many != place.isdigit():
            lines.append(f"{name}: no such table{nearest(name, known)}")
        elif not isinstance(made, known[table].base):
            lines.append(
                f"{name}: expected an instance of {known[table].base.__name__}, got {made!r}"
            )
    return lines


def _all_components(
    tables: Tables, given: Mapping[str, Component], host: PluginHost, problems: Problems
) -> Iterable[tuple[str, Component]]:
    for kind in KINDS:
        if not kind.table:
            continue
        if kind.table in given:
            yield kind.table, given[kind.table]
            continue
        table = tables.get(kind.table, [] if kind.many else None)
        if kind.many:
            yield from _array(kind, table, host, problems)
            yield from ((t, c) for t, c in given.items() if t.startswith(f"{kind.table}."))
            continue
        if table is None and kind.required:
            problems.append(f"{kind.table}: missing table; a course needs it")
        elif table is not None or kind.default:
            made, wrong = component(kind, {} if table is None else table, kind.table, host)
            problems += wrong
            if made is not None:
                yield kind.table, made


def _array(
    kind: Kind, table: Any, host: PluginHost, problems: Problems
) -> Iterable[tuple[str, Component]]:
    if not isinstance(table, list):
        problems.append(f"{kind.table}: expected an array of tables, [[{kind.table}]]")
        return
    for place, entry in enumerate(table):
        key = f"{kind.table}.{place}"
        made, wrong = component(kind, entry, key, host)
        problems += wrong
        if made is not None:
            yield key, made


def _overrides(
    entries: Any, components: Mapping[str, Component], problems: Problems
) -> tuple[Override, ...]:
    if not isinstance(entries, list):
        problems.append("override: expected an array of tables, [[override]]")
        return ()
    overrides = []
    for place, entry in enumerate(entries):
        key = f"override.{place}"
        if not isinstance(entry, Mapping):
            problems.append(f"{key}: expected a table, got {_named(entry)}")
            continue
        clients = entry.get("clients")
        if not isinstance(clients, list) or not all(type(c) is int and c >= 0 for c in clients):
            problems.append(f"{key}.clients: expected a list of client ids")
            continue
        values: dict[str, Scalar] = {}
        for table, options in _tables_of(entry):
            made = components.get(table)
            near = nearest(table, [kind.table for kind in KINDS if kind.table])
            if made is None and near and kind_at(table.split(".")[0]) is None:
                problems.append(f"{key}.{table}: unknown table{near}")
            else:
                _override(made, table, options, f"{key}.{table}", values, problems)
        overrides.append(Override(tuple(clients), values))
    return tuple(overrides)


def _tables_of(entry: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yield table and options; `privacy.0.clip_norm` is an option of the table `privacy.0`."""
    for table, options in entry.items():
        kind = kind_at(table)
        if kind is not None and kind.many and isinstance(options, Mapping):
            yield from ((f"{table}.{place}", own) for place, own in options.items())
        elif table != "clients":
            yield table, options


def _override(
    made: Component | None,
    table: str,
    options: Any,
    key: str,
    values: dict[str, Scalar],
    problems: Problems,
) -> None:
    if made is None or not isinstance(options, Mapping):
        problems.append(f"{key}: expected a table of options of a component, like trainer.lr = 0.1")
        return
    fields = {a.name: a for a in options_of(type(made))}
    for name, value in options.items():
        if name not in fields:
            problems.append(f"{key}.{name}: unknown option of '{made.name}'{nearest(name, fields)}")
        elif not fields[name].metadata["per_client"]:
            problems.append(f"{key}.{name}: cannot differ by client")
        else:
            result, wrong = structure_option(type(made), name, value, f"{key}.{name}")
            problems += wrong
            values[f"{table}.{name}"] = result
