"""`fscore new-plugin`: what it writes installs, is listed, and passes its own tests."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sysconfig
import tomllib
import venv
from xml.etree import ElementTree

import pytest
from pytest_helpers import run_tests

from fscore import testing
from fscore.cli import main
from fscore.cli.new_plugin_command import render
from fscore.cli.recipes import RECIPES, kind_of_recipe
from fscore.config import resolve
from fscore.course import Course
from fscore.kinds import KINDS

FSCORE = ("-c", "from fscore.cli import main; main()")


def new_plugin(*words):
    with pytest.raises(SystemExit) as stop:
        main(["new-plugin", *map(str, words)])
    return stop.value.code


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder of a new plugin."""
    into = tmp_path_factory.mktemp("new")
    assert new_plugin("slow-fade", "--into", into) == 0
    return into / "fs-slow-fade"


@pytest.fixture(scope="module")
def python(package):
    """Return a function that runs the Python of an environment in which the new plugin is installed.

    The environment sees the packages of this one, so that torch is not installed again.
    """
    home = package.parent / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    paths = {"base": str(home), "platbase": str(home)}
    site = sysconfig.get_path("purelib", scheme="venv", vars=paths)
    with open(f"{site}/outer.pth", "w") as file:  # noqa: PTH123
        file.write(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def run(*words):
        done = subprocess.run(
            [home / "bin" / "python", *words],
            cwd=package,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    run("-m", "pip", "install", "--quiet", *offline, "--editable", ".")
    return run


def test_an_installed_package_is_listed_with_its_aggregator(python):
    lines = python(*FSCORE, "plugins").splitlines()

    at = lines.index("[plugins.slow_fade]  fs-slow-fade 0.1.0")

    assert lines[at + 1] == f"  {'aggregators':<18} slow_fade"


def test_its_own_tests_pass(python):
    report = python("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "tests")

    assert re.search(r"^\d+ passed in", report, re.MULTILINE)


def test_the_course_of_its_readme_is_valid(python, package):
    text = (package / "README.md").read_text()
    course = package / "course.toml"
    course.write_text(text.split("```toml\n")[1].split("```")[0])

    python(*FSCORE, "check", "course.toml")


def test_the_hooks_are_importable_without_torch(python):
    code = "import sys, fs_slow_fade.plugin; print('torch' in sys.modules)"

    assert python("-c", code) == "False\n"


def test_every_file_is_written(package):
    written = {
        str(path.relative_to(package)): path.read_text()
        for path in (package / "pyproject.toml", package / "README.md", *package.glob("*/**/*"))
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert written == render("slow-fade")


def test_the_files_of_a_package():
    assert sorted(render("slow-fade")) == [
        "README.md",
        "pyproject.toml",
        "src/fs_slow_fade/__init__.py",
        "src/fs_slow_fade/aggregator.py",
        "src/fs_slow_fade/plugin.py",
        "src/fs_slow_fade/py.typed",
        "tests/test_slow_fade.py",
    ]


def test_the_entry_point_names_the_plugin_class():
    project = tomllib.loads(render("slow-fade")["pyproject.toml"])["project"]

    assert project["entry-points"] == {
        "fscore.plugins": {"slow_fade": "fs_slow_fade.plugin:SlowFadePlugin"}
    }


def test_a_name_that_is_a_keyword_gives_valid_python():
    for path, text in render("async").items():
        if path.endswith(".py"):
            compile(text, path, "exec")


@pytest.mark.parametrize("name", ["Fade", "2fade", "fade!", "../fade", "fade-", "_fade", ""])
def test_a_bad_name_is_refused(name, tmp_path, capsys):
    code = new_plugin("--into", tmp_path, name)

    assert (code, capsys.readouterr().err) == (
        2,
        f"error: NAME: expected lower-case letters, digits and hyphens, a letter first, got '{name}'\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "fs-fade").mkdir()

    code = new_plugin("fade", "--into", tmp_path)

    assert (code, capsys.readouterr().err) == (2, "error: fs-fade: already exists\n")
    assert list((tmp_path / "fs-fade").iterdir()) == []


# ------------------------------------------------------------------------ every kind


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    """A folder with a package of each kind, and the test cases that failed, by package; nothing is installed."""
    into = tmp_path_factory.mktemp("every")
    for kind in RECIPES:
        assert new_plugin(f"my-{kind}", "--kind", kind, "--into", into) == 0
    sources = os.pathsep.join(str(path) for path in sorted(into.glob("*/src")))
    packages = [f"{path.name}/tests" for path in sorted(into.glob("fs-*"))]
    done = run_tests(into, "--junitxml", "report.xml", *packages, PYTHONPATH=sources)
    assert (into / "report.xml").exists(), done.stdout + done.stderr
    cases = ElementTree.parse(into / "report.xml").iter("testcase")  # noqa: S314
    found = {}
    for case in cases:
        package = re.search(r"test_my_(\w+)", case.get("classname"))[1]
        bad = [e for e in case if e.tag in ("failure", "error")]
        found.setdefault(package, []).append((case.get("name"), [e.get("message") for e in bad]))
    return into, found


def test_every_kind_that_has_a_suite_has_a_recipe():
    assert {kind_of_recipe(recipe) for recipe in RECIPES.values()} == set(KINDS)
    assert {s for r in RECIPES.values() for s in r.suites.split(", ")} <= set(testing.__all__)


@pytest.mark.parametrize("kind", RECIPES)
def test_a_package_of_every_kind_passes_its_own_tests(every, kind):
    _, found = every

    assert [case for case in found[kind] if case[1]] == []
    assert len(found[kind]) >= 6


@pytest.mark.parametrize("kind", RECIPES)
def test_the_course_of_every_readme_is_valid(every, kind, monkeypatch):
    into, _ = every
    package = into / f"fs-my-{kind}"
    monkeypatch.syspath_prepend(package / "src")
    plugin = importlib.import_module(f"fs_my_{kind}.plugin")
    (made,) = [c for n, c in vars(plugin).items() if n.endswith("Plugin")]
    text = (package / "README.md").read_text().split("```toml\n")[1].split("```")[0]

    course = Course(resolve(tomllib.loads(text), plugins=[made]))

    assert f"my_{kind}" in course.config.tables["plugins"]


def test_an_unknown_kind_gets_the_nearest(tmp_path, capsys):
    assert new_plugin("fade", "--kind", "agregator", "--into", tmp_path) == 2
    expected = f"error: --kind: there is no 'agregator', did you mean 'aggregator'? (known: {', '.join(RECIPES)})\n"
    assert capsys.readouterr().err == expected
    assert list(tmp_path.iterdir()) == []
