"""One recipe. All its texts are templates of `$name`, `$title` and `$module`."""

from __future__ import annotations

from attrs import frozen


@frozen
class Recipe:
    """A component of one kind."""

    kind: str
    """What `--kind` takes, and the name of the component's module."""
    plural: str
    """Of the hook."""
    about: str
    """What the component is, for the README."""
    code: str
    """The component's module, below its docstring and the import of annotations; the class is `$title` and `suffix`."""
    suffix: str
    suites: str
    """Contract suites, as in the head of the test class."""
    tables: str
    """Tables of a course that use it."""
    arguments: str = ""
    """Options with which the suite makes it."""
    more: str = ""
    """Further tests."""
    suite: str = ""
    """Further lines of the test class, indented."""
    command: str = "run"
    """The command that runs the course of the README."""
