"""How tests run other tests: in a process of their own, strictly, and leaving nothing behind."""

import os
import subprocess
import sys

STRICTLY = ("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")


def run_tests(folder, *arguments, **environment):
    """Run pytest in a folder, and return the ended process with what it printed."""
    return subprocess.run(
        [sys.executable, *STRICTLY, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
