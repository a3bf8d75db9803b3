"""Scripts in processes of their own that need not import other people's libraries again: forks of one that has them.

Nothing of the project is imported before the fork, so a script still has to import what it uses of it.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_SERVER = """
import importlib, json, os, runpy, sys, traceback

for name in ("torch", "numpy", "scipy.stats", "matplotlib.pyplot", "gymnasium", "pettingzoo", "stable_baselines3"):
    importlib.import_module(name)
for line in sys.stdin:
    folder, script = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.chdir(folder)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.argv, sys.path[0] = [script], folder
            runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def environment() -> dict[str, str]:
    """That of the commands of a person: one thread, no window."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


def run_script(text: str, folder: Path) -> tuple[int, str]:
    """Run a script in a process of its own.

    Args:
        text: the script; it becomes ``example.py``, because workers in processes of their own import it.
        folder: where it runs, empty.

    Returns:
        Exit code, negative for a signal, and what it wrote to standard error.
    """
    (folder / "example.py").write_text(text)
    if not hasattr(os, "fork"):
        done = subprocess.run(
            [sys.executable, "example.py"], cwd=folder, env=environment(), capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps([str(folder), "example.py"]) + "\n")
    server.stdin.flush()
    code = int(server.stdout.readline())
    errors = (folder / "stderr").read_text(errors="replace")
    for name in ("stdout", "stderr"):
        (folder / name).unlink()
    return code, errors


@functools.cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    )
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[str]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    server.wait()
