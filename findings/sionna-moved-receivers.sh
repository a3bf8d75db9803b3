#!/usr/bin/env bash
# Sionna RT 2.2: every receiver that is moved costs a kernel that has to be compiled, drop after drop.
#
# Guess: moving the receivers of a loaded scene and solving again costs rays; kernels are compiled in the first call.
# Behaviour: a position given as numbers is a literal of Dr.Jit, which stands in the kernel that writes it among the
#   targets. Another position is another kernel: N moved receivers are N compilations in every call, for ever. With a
#   position that is evaluated first (drjit.make_opaque) there are none, and the paths are the same bit by bit.
# Why it matters: data sets of channels are drops of receivers. In the backend for processors the compiler took about
#   a third to a half of the time of tracing 25 receivers, six transmitters and 10 000 rays each.
# Way out: point = mi.Point3f(x, y, z); dr.make_opaque(point); receiver.position = point.
# Version: sionna-rt 2.2.0. Date: 2026-11-30.
# Source: sionna/rt/scene.py, Scene._endpoints; https://github.com/NVlabs/sionna-rt
# Needs an LLVM library that Dr.Jit finds (Debian: libllvm19). Exits with 1 if the behaviour is no longer there.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/python -m pip install --quiet sionna-rt==2.2.0 mitsuba==3.9.1 drjit==1.5.0
cat > finding.py <<'PYTHON'
import drjit as dr
import mitsuba as mi

mi.set_variant("llvm_ad_mono_polarized")
import sionna.rt as rt

scene = rt.load_scene(rt.scene.box)
scene.tx_array = scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
scene.add(rt.Transmitter("ap", position=[0.0, 0.0, 3.0]))
users = [rt.Receiver(f"user_{number}", position=[1.0 + number, 0.5, 1.5]) for number in range(4)]
for user in users:
    scene.add(user)
solve = rt.PathSolver()
dr.set_flag(dr.JitFlag.KernelHistory, True)


def compiled(point):
    """Kernels that had to be compiled to solve for the same users elsewhere."""
    for number, user in enumerate(users):
        user.position = point(number)
    dr.kernel_history_clear()
    dr.eval(solve(scene, max_depth=1, samples_per_src=1000).a)
    return sum(not entry["cache_hit"] for entry in dr.kernel_history([dr.KernelType.JIT]))


def evaluated(x, y):
    point = mi.Point3f(x, y, 1.5)
    dr.make_opaque(point)
    return point


# The first drops compile whatever does not depend on places.
literal = [compiled(lambda number: mi.Point3f(1.1 + 0.7 * number, 0.1 * drop, 1.5)) for drop in range(4)]
opaque = [compiled(lambda number: evaluated(1.2 + 0.7 * number, 0.1 * drop)) for drop in range(4)]
print("guess: kernels compiled from the second drop on: 0")
print("positions as numbers, kernels compiled per drop of four users:", literal)
print("positions evaluated first:", opaque)
raise SystemExit(0 if all(count >= 4 for count in literal[1:]) and not any(opaque[1:]) else 1)
PYTHON
# Compiled kernels would otherwise be found in the home folder by the second run.
HOME=$place venv/bin/python finding.py
