"""What the compiled games are handed: another shape, type or number is a refusal in one line, never a wrong result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CASES = {
    "an empty action": ("state", "torch.zeros(0)", "actions are (0,); they must be of shape (2, 9, 4)"),
    "an agent too few": ("state", "actions[:, :-1]", "actions are (2, 8, 4)"),
    "an episode too few": ("state", "actions[:1]", "actions are (1, 9, 4)"),
    "no number": ("state", "actions * float('nan')", "actions contain NaN or infinity"),
    "one infinite action": ("state", "actions / 0.0", "actions contain NaN or infinity"),
    "a mask of floats": ("state.replace(fused=state.fused.float())", "actions", "fused is float32 [2, 9, 2]"),
    "a short row": ("state.replace(peak=state.peak[:, :3])", "actions", "peak is float32 [2, 3, 2]"),
    "rounds of 32 bits": ("state.replace(round=state.round.int())", "actions", "round is int32 [2]"),
    "double precision": ("state.replace(spread_m=state.spread_m.double())", "actions", "spread_m is float64 [2, 2]"),
}
CHILD = """
import json, sys
import torch
from cfpos_envs import make_env
env = make_env("dcp-jar-v0", num_envs=2, seed=1, num_aps=9, num_ues=2, num_antennas=4, num_sites=2, kernel="native")
env.reset()
state, actions = env.game_state, torch.full((2, 9, 4), 0.25)
reward = env.scenario.step(state, actions).reward
answers = {}
for name, (given, played, _) in json.loads(sys.argv[1]).items():
    for call in ("step", "observe") if played == "actions" else ("step",):
        try:
            arguments = (eval(given), eval(played)) if call == "step" else (eval(given),)
            getattr(env.scenario, call)(*arguments)
            answers[f"{name}, {call}"] = "accepted"
        except ValueError as error:
            answers[f"{name}, {call}"] = str(error)
# Strided tensors are no error, and what was refused has left nothing behind.
strided = torch.full((2, 9, 8), 0.25)[:, :, ::2]
answers["again"] = bool(torch.equal(env.scenario.step(state, strided).reward, reward))
print(json.dumps(answers))
"""


def test_kernels_refuse_what_they_would_misread() -> None:
    # In a process of its own: in this one jaxtyping's import hook answers first, and a crash would end all tests.
    command = [sys.executable, "-c", CHILD, json.dumps(CASES)]
    child = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert child.returncode == 0, child.stderr
    answers = json.loads(child.stdout)
    assert answers.pop("again")
    assert len(answers) == len(CASES) + sum(case[1] == "actions" for case in CASES.values())
    for case, said in answers.items():
        assert CASES[case.split(",")[0]][2] in said, case
        assert "\n" not in said
