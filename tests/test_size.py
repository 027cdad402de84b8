"""The kernel stays small, its functions short, and it names no feature."""

import ast
import re
from pathlib import Path

from fscore.plugins import PluginHost

ROOT = Path(__file__).parents[1] / "fscore"
OUTSIDE = ("builtin", "testing", "cli")
KERNEL = [p for p in sorted(ROOT.rglob("*.py")) if p.relative_to(ROOT).parts[0] not in OUTSIDE]


def code_lines(path):
    """Lines that hold code: no blank lines, comments or docstrings."""
    text = path.read_text()
    documented = set()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            documented.update(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return [
        i
        for i, line in lines
        if line.strip() and not line.strip().startswith("#") and i not in documented
    ]


def test_the_kernel_does_not_grow():
    """Small enough to read in one sitting."""
    assert sum(len(code_lines(path)) for path in KERNEL) <= 3500


def test_no_file_is_longer_than_500_lines():
    long = {
        str(p.relative_to(ROOT))
        for p in ROOT.rglob("*.py")
        if len(p.read_text().splitlines()) > 500
    }
    assert long == set()


def test_functions_are_short():
    lengths = []
    for path in ROOT.rglob("*.py"):
        code = set(code_lines(path))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                lengths.append(
                    (
                        len(code & set(range(node.lineno, node.end_lineno + 1))),
                        f"{path.name}:{node.name}",
                    )
                )
    lengths.sort()
    assert lengths[int(0.95 * len(lengths))][0] <= 25
    assert lengths[-1][0] <= 60, lengths[-1]


def test_the_kernel_names_no_component():
    """Defaults of `KINDS` are the only places where a component's name may stand."""
    names = {name for _, name in PluginHost.load({}).registry.classes}
    # also reductions, columns of metrics, forms of weights, sampling schemes, words of English
    allowed = {"mean", "loss", "all", "staleness", "uniform", "none", "poisson", "cohort"}
    found = []
    for path in KERNEL:
        if path.name == "__init__.py" and path.parent.name == "kinds":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in names - allowed:
                found.append(f"{path.relative_to(ROOT)}: {node.value}")
    assert sorted(set(found)) == []


def test_nothing_global_is_drawn_from():
    """No global generator, no pickle, no eval."""
    pattern = re.compile(
        r"np\.random\.(rand|seed|normal|choice)\b|torch\.load\(|\bpickle\b|\beval\(|random\.seed"
    )
    found = [
        p.name
        for p in ROOT.rglob("*.py")
        if pattern.search(re.sub(r'""".*?"""|#.*', "", p.read_text(), flags=re.S))
    ]
    assert sorted(set(found)) == []


def test_the_kernel_looks_into_the_built_in_part_for_few_defaults():
    """The list of docs/architecture.md."""
    pattern = re.compile(r"^\s*from (fscore\.builtin\S*) import", re.M)
    found = {
        (path.relative_to(ROOT).as_posix(), module)
        for path in KERNEL
        for module in pattern.findall(path.read_text())
    }
    assert found == {
        ("__init__.py", "fscore.builtin.api"),
        ("assembly.py", "fscore.builtin.views"),
        ("folding.py", "fscore.builtin.executors.summing"),
        ("kinds/aggregator.py", "fscore.builtin.stages"),
        ("kinds/attack.py", "fscore.builtin.stages"),
        ("plugins.py", "fscore.builtin.plugin"),
        ("reporting.py", "fscore.builtin.views"),
    }
