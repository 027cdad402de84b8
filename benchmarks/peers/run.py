"""fscore beside other simulators: `python benchmarks/peers/run.py [W0 W1 W2 W3] [--repeats N] [--flower]`.

The peers are installed from the registry into a virtual environment of their own (`.venv` beside this file), which sees this
environment's torch, so that all contenders compute with the same one. Contenders run in processes of their own, one after
another, A B A B, and medians over the repeats are printed: microseconds per client, wall clock and CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

from workloads import WORKLOADS

HERE = Path(__file__).parent
VENV = HERE / ".venv"
PEERS = {
    "pfl": ("pfl", [["pfl"]]),
    "fedlab": (
        "fedlab_peer",
        [
            ["--no-deps", "fedlab==1.3.0"],
            ["nvidia-ml-py", "pandas", "pillow", "scikit-learn", "tqdm"],
        ],
    ),
    "flower": ("flwr, ray", [["flwr[simulation]"]]),
}
"""Peers: what has to be importable, and what pip is asked for, one call after another."""
PINNED = ("torch", "numpy")
"""Packages of this environment that no peer may bring in another version."""
DISTRIBUTED = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def installed(peer: str) -> str:
    """Install a peer if need be; return why it is not there, or nothing."""
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        site = Path(sysconfig.get_path("purelib", vars={"base": str(VENV)}))
        (site / "host.pth").write_text(sysconfig.get_path("purelib") + "\n")
    modules, wanted = PEERS[peer]
    probe = [str(python), "-c", f"import {modules}"]
    if not problem_of(probe):
        return ""
    constraints = VENV / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version(name)}\n" for name in PINNED))
    pip = [str(python), "-m", "pip", "install", "--quiet", "-c", str(constraints)]
    commands = [[*pip, *words] for words in wanted]
    return next((problem for words in [*commands, probe] if (problem := problem_of(words))), "")


def problem_of(command: list[str]) -> str:
    """Run a command; return the last line of its complaint if it fails, or nothing."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE)
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]


def contenders(flower: bool) -> dict[str, list[str]]:
    """Return the command of each contender, without the workload."""
    ours, theirs = sys.executable, str(VENV / "bin" / "python")
    found = {
        "fscore serial": [ours, str(HERE / "ours.py"), "{}", "serial"],
        "fscore auto, 1 core": [ours, str(HERE / "ours.py"), "{}", "one"],
        "fscore, 2 cores": [ours, str(HERE / "ours.py"), "{}", "two"],
    }
    peers: dict[str, dict[str, list[str]]] = {
        "pfl": {"pfl, 1 core": [], "pfl, 2 cores": DISTRIBUTED},
        "fedlab": {"fedlab, 1 core": []},
        "flower": {"flower on ray, 2 actors": []},
    }
    for peer, rows in peers.items():
        if peer == "flower" and not flower:
            continue
        problem = installed(peer)
        if problem:
            print(f"{peer} does not install here: {problem}")
            continue
        script = str(HERE / f"{peer}_peer.py")
        found |= {row: [theirs, *words, script, "{}"] for row, words in rows.items()}
    return found


def measured(words: list[str], workload: str) -> dict[str, float] | None:
    """Run a contender and return its numbers; None: it failed, which is printed."""
    command = [word.replace("{}", workload) for word in words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=HERE
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"wall_us"')]
    if not lines:
        print(f"failed: {' '.join(command)}\n{done.stderr.strip()[-500:]}")
        return None
    numbers: dict[str, float] = json.loads(lines[-1])
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=["W0", "W1"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--flower", action="store_true", help="also Flower on Ray: minutes")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", default=[""], help="contenders whose names begin so"
    )
    options = parser.parse_args()
    wrong = [name for name in options.workloads if name not in WORKLOADS]
    if wrong or options.repeats < 1:
        parser.error(f"workloads are {', '.join(WORKLOADS)}, and at least 1 repeat is expected")
    known = contenders(options.flower)
    commands = {n: words for n, words in known.items() if n.startswith(tuple(options.only))}
    if not commands:
        parser.error(f"--only: contenders are {', '.join(known)}")
    print(platform.processor() or platform.machine())
    for workload in options.workloads:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
        for _ in range(options.repeats):
            for name, words in commands.items():
                numbers = measured(words, workload)
                if numbers:
                    found[name].append(numbers)
        print(f"{workload}  load {os.getloadavg()[0]:.1f}, {options.repeats} repeats")
        for name, runs in found.items():
            if runs:
                wall, cpu = (statistics.median(r[k] for r in runs) for k in ("wall_us", "cpu_us"))
                print(
                    f"{workload}  {name:<24} {wall:12,.1f} us wall {cpu:12,.1f} us CPU per client",
                    flush=True,
                )


if __name__ == "__main__":
    main()
