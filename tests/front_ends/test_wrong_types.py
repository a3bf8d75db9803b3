"""Arguments of a wrong type get our one-line errors. Own process: in this one jaxtyping's import hook answers first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CASES = {
    "make_env(7)": "environment id is 7; it must be one of",
    "make_env(TOY, num_envs=1.5)": "num_envs is 1.5; it must be an integer",
    "make_env(TOY, num_envs='two')": "num_envs is 'two'",
    "make_env(TOY, num_envs=1, seed='seven')": "seed is 'seven'; it must be an integer",
    "make_env(TOY, device=3.5)": "device is 3.5; it must be 'cpu'",
    "make_env(TOY, render_mode=3)": "render_mode is 3; it must be 'human'",
    "venv.step([[0.0]])": "actions are list; they must be a tensor of shape (2, 3, 4)",
    "evaluate(TOY, OneShot(), episodes=2.5)": "episodes is 2.5; it must be an integer",
    "gymnasium.make('cfpos/' + TOY, joint_reward='max')": "joint_reward is 'max'; it must be 'mean' or 'sum'",
}

CHILD = """
import json, sys
import gymnasium
from cfpos_envs import evaluate, make_env
from tests.front_ends.toy import OneShot, register_toy
TOY = register_toy()
venv = make_env(TOY, num_envs=2)
venv.reset()
answers = {}
for case in json.loads(sys.argv[1]):
    try:
        eval(case)
        answers[case] = "accepted"
    except ValueError as error:
        answers[case] = str(error)
print(json.dumps(answers))
"""


def test_wrong_types_are_named_in_one_line() -> None:
    command = [sys.executable, "-c", CHILD, json.dumps(list(CASES))]
    child = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert child.returncode == 0, child.stderr
    answers = json.loads(child.stdout)
    for case, message in CASES.items():
        assert message in answers[case], case
        assert "\n" not in answers[case]
