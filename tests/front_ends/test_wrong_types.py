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
    "venv.reset(seed='seven')": "seed is 'seven'; it must be an integer, a list of one per episode, or None",
    "venv.reset(seed=1.5)": "seed is 1.5; it must be an integer",
    "venv.reset(seed=[1])": "seed has 1 entries for num_envs=2",
    "venv.reset(seed=[1, -2])": "seed[1] is -2; it must be an integer from 0",
    "venv.reset(seed=[1, 2.5])": "seed[1] is 2.5; it must be an integer from 0",
    "venv.reset(seed=[True, 1])": "seed[0] is True",
    "venv.reset(seed=[1, 2**80])": "seed[1] is 1208925819614629174706176; it must be an integer from 0",
    "venv.reset(seed=[1, 2])": "make the env with rng='counter'",
    "venv.reset(seed=3, options=mask([True, False]))": "make the env with rng='counter'",
    "venv.reset(options=mask([True, False, True]))": "reset_mask is of type bool and shape (3,); it must be a boolean",
    "venv.reset(options=mask([1, 0]))": "reset_mask is of type int64 and shape (2,)",
    "venv.reset(options=mask([[True], [False]]))": "shape (2, 1)",
    "venv.reset(options=mask([False, False]))": "reset_mask is false everywhere",
    "venv.reset(options={'reset_mask': [True, False]})": "reset_mask is [True, False]; it must be a boolean",
    "venv.reset(options={'reset_msk': None})": "unknown reset option 'reset_msk'; did you mean reset_mask?",
    "view.reset(seed=-1)": "seed is -1; it must be an integer from 0",
    "view.step('left')": "actions are 'left'; they must be an array (2, 12)",
    "SingleAgentVectorEnv(make_env(TOY))": "ParallelEnv is no batched game; make one with make_env(id, num_envs=16)",
    "SingleAgentVectorEnv(venv, 'max')": "joint_reward is 'max'",
    "make_env(TOY, num_envs=2, autoreset_mode='Never')": "autoreset_mode is 'Never'; it must be",
    "make_env(TOY, num_envs=2, autoreset_mode=3)": "or one of NextStep, SameStep, Disabled",
    "make_env(TOY, autoreset_mode='NextStep')": "autoreset_mode needs num_envs",
    "make_env(TOY, device=3.5)": "device is 3.5; it must be 'cpu'",
    "make_env(TOY, render_mode=3)": "render_mode is 3; it must be 'human'",
    "venv.step([[0.0]])": "actions are list; they must be a tensor of shape (2, 3, 4)",
    "evaluate(TOY, OneShot(), episodes=2.5)": "episodes is 2.5; it must be an integer",
    "gymnasium.make('cfpos/' + TOY, joint_reward='max')": "joint_reward is 'max'; it must be 'mean' or 'sum'",
}

CHILD = """
import json, sys
import gymnasium
import numpy as np
from cfpos_envs import evaluate, make_env
from cfpos_envs.front_ends import SingleAgentVectorEnv
from tests.front_ends.toy import OneShot, register_toy
TOY = register_toy()
venv = make_env(TOY, num_envs=2)
venv.reset()
view = SingleAgentVectorEnv(make_env(TOY, num_envs=2))
view.reset()
def mask(values):
    return {"reset_mask": np.array(values)}
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
