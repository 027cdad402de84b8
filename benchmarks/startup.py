"""Start-up: `python benchmarks/startup.py` runs one version of the first course in a fresh process, and imports torch alone.

Prints medians of five runs: wall clock and CPU from the start of the process to its end, one version made.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COURSE = Path(__file__).parents[1] / "examples" / "digits.toml"
RUNS = 5


def taken(command: list[str]) -> tuple[float, float]:
    """Return wall clock and CPU seconds of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        course = f"from fscore.cli import main; main(['run', {str(COURSE)!r}, '--set', 'course.until.versions=1', '--out', "
        names = {"one version of examples/digits.toml": "", "import torch": "import torch"}
        for name, code in names.items():
            runs = [
                taken([sys.executable, "-c", code or f"{course}{folder + f'/{i}'!r}])"])
                for i in range(RUNS)
            ]
            wall, cpu = (statistics.median(run[i] for run in runs) for i in (0, 1))
            print(f"{name:<38} {wall:6.2f} s wall {cpu:6.2f} s CPU")


if __name__ == "__main__":
    main()
