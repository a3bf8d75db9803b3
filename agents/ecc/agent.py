"""The agents ``ecc`` and ``ecc-fast``: base stations that send bits, a central unit that answers with positions."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.physics.ecc.features import feature_size
from cfpos_envs.settings import Settings
from cfpos_envs.streams import derive_seed
from cfpos_envs.supervised.agent_config import EccAgentConfig, EccFastAgentConfig
from cfpos_envs.supervised.bitstream import Messages
from cfpos_envs.supervised.data import Batch
from cfpos_envs.supervised.inputs import as_images, network_shape, snapshots
from cfpos_envs.supervised.network import EccNetwork

from ..base import Agent
from ..environments import as_vector_env
from .training import Training

# What an observation holds after the features: log gain, validity, ...; see ``scenarios.ecc.observe``.
_LOG_GAIN_SCALE = 4.0


class Ecc(Agent):
    """Edge-cloud cooperative positioning: encode at every BS, decode and locate at the CU, all BSs report its answer.

    Everything between the two is real: ``encode`` gives packed bytes, ``decode`` reads nothing else.

    Args:
        env: an environment that measures CSI: id, VectorEnv or ParallelEnv.
        config: settings.

    Attributes:
        system: constants of the network it was trained in; they standardise the gains.
        network: encoders, quantiser, fusion.
        messages: what the base stations sent last.

    Raises:
        ValueError: an environment without CSI, or settings that its CSI cannot serve.
    """

    name: ClassVar[str] = "ecc"
    config_class: ClassVar[type[Settings]] = EccAgentConfig
    shares_batches: ClassVar[bool] = True
    config: EccAgentConfig

    def __init__(self, env: Any, config: EccAgentConfig) -> None:
        self.config = config
        self.env = as_vector_env(env, config.num_envs, config.seed, config.device)
        # The measurements to act on are those of the environment that was handed in, not of one made from it.
        self.player = env if hasattr(type(env), "encode_estimate") else self.env
        self.system = csi_system(self.env, self.name)
        self.steps_trained = 0
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "weights"))
        self.network = EccNetwork(config, network_shape(config, self.system), generator).to(config.device).eval()
        self.messages: Messages | None = None

    @property
    def fronthaul_bits(self) -> float:
        """Bits that a BS sends per user and snapshot: those counted last, before that those of the layout.

        Without a quantiser (``bits=0`` or ``strategy=raw``) the numbers would go as 32-bit floats: 32 D, flag and gain.
        """
        layout = self.network.layout
        if layout.bits == 0:
            return float(32 * layout.coefficients + layout.message_bits)
        if self.messages is not None and bool(self.messages.received.any()):
            return float(self.messages.counted_bits()[self.messages.received].float().mean())
        return float(layout.message_bits)

    def train(
        self,
        total_steps: int | None = None,
        log_dir: str | Path | None = None,
        resume: str | Path | None = None,
        figures: Callable[[int], dict[str, Any]] | None = None,
        callback: Callable[[int], None] | None = None,
        progress: bool | None = None,
    ) -> dict[str, float]:
        """Make a pool of labelled snapshots, train on it, keep the averaged weights of the end.

        Args:
            total_steps: snapshots seen in the (second) training stage, with repetition; None: ``config.samples``, or
                as planned on resuming.
            log_dir: folder for TensorBoard files, ``last.pt`` and ``best.pt``.
            resume: folder or ``last.pt`` of an unfinished run; the pool is made again, the run goes on bit for bit.
            figures: called with the snapshots seen at every evaluation; its figures go to TensorBoard beside ours
                (reconstruction and phase, ADCPM, distribution of errors).
            callback: called with the snapshots seen at every evaluation.
            progress: show a bar; None: only on a terminal.

        Returns:
            ``steps``, ``mean_m``, ``median_m`` and ``p90_m`` on snapshots set aside, ``pool_cpu_s``, ``train_cpu_s``.

        Raises:
            ValueError: nothing to train, a run that is finished or of another game, or a folder that holds a run.
            FileNotFoundError: nothing to resume from.
            FloatingPointError: the loss became NaN or infinite.
        """
        return Training(self, total_steps, log_dir, resume, figures, callback, progress).run()

    def locate(self, measurements: Any) -> PositionEstimate:
        """Positions [B, J, 3] of all users by way of the bits; invalid where no BS hears the user.

        Args:
            measurements: ``CsiMeasurements``.

        Raises:
            ValueError: measurements of another kind of network.
        """
        if not isinstance(measurements, CsiMeasurements):
            raise ValueError(
                f"{self.name} needs CsiMeasurements, got {type(measurements).__name__}; use it with an ecc environment."
            )
        batch = snapshots(measurements, self.config, self.system).to(self.config.device)
        shape = measurements.csi.shape[:2]
        valid = batch.valid.any(dim=-1).unflatten(0, shape)
        position = self._positions(batch).unflatten(0, shape)
        return PositionEstimate(position.to(measurements.csi.device), None, valid.to(measurements.csi.device))

    def encode(self, measurements: CsiMeasurements) -> Messages:
        """What the base stations send for all users of all episodes, one after another."""
        return self.network.encode(snapshots(measurements, self.config, self.system).to(self.config.device))

    def decode(self, messages: Messages) -> Float[Tensor, "S 3"]:
        """Positions in metres that the CU reads out of messages; BitstreamError if their length is not agreed on."""
        return self.network.decode(messages)

    def act_batch(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """Every BS reports the CU's estimate.

        Base stations see the features of their own CSI in their observations; where the agent was made for other
        features than the environment shows, its base stations look at the CSI itself (``env.measurements``).
        """
        batch = self._from_observations(observations)
        if batch is None:
            measured = getattr(self.player, "measurements", None)
            position = self.locate(measured if measured is not None else self.env.measurements).position
        else:
            users = observations.shape[-1] // self._entity_size()
            position = self._positions(batch).unflatten(0, (observations.shape[0], users))
        normalised = self.system.normalise_position(position.to(observations.device)).clamp(-1.0, 1.0)
        users = position.shape[1]
        padding = self.env.action_size // self._users() - 3
        actions = torch.nn.functional.pad(normalised, (0, padding)).reshape(len(observations), 1, -1)
        assert users == self._users()
        return actions.expand(-1, observations.shape[1], -1)

    @contextlib.contextmanager
    def playing(self, env: Any) -> Iterator[None]:
        """Inside, ``act_batch`` looks at the measurements of this environment, not of the one the agent was made for.

        Args:
            env: one like it, e.g. for a picture of an episode.
        """
        before, self.player = self.player, env
        try:
            yield
        finally:
            self.player = before

    def policy_state(self) -> dict[str, Any]:
        """What ``save`` writes: a copy of the networks and of what they belong to."""
        return {
            "name": self.name,
            "config": self.config.to_dict(),
            "system": dataclasses.asdict(self.system),
            "network": copy.deepcopy(self.network.state_dict()),
            "steps": self.steps_trained,
        }

    def load_policy(self, state: dict[str, Any]) -> None:
        """Take over networks from ``policy_state``; ValueError if they belong to another network of base stations."""
        there = CsiSystem(**{name: _tuples(value) for name, value in state["system"].items()})
        for name in ("num_bs", "num_slots", "array_shape", "num_subcarriers", "area_min_m", "area_max_m"):
            if getattr(there, name) != getattr(self.system, name):
                raise ValueError(
                    f"the checkpoint was trained with {name}={getattr(there, name)}, this environment has "
                    f"{getattr(self.system, name)}; make the environment with the training overrides."
                )
        self.system = there
        self.network.load_state_dict(state["network"])
        self.steps_trained = int(state["steps"])

    def _positions(self, batch: Batch) -> Float[Tensor, "S 3"]:
        self.network.eval()
        if self.network.layout.bits == 0:
            return self.network.predict(batch)
        self.messages = self.network.encode(batch)
        return self.network.decode(self.messages)

    def _from_observations(self, observations: Tensor) -> Batch | None:
        """The base stations' inputs out of their observations; None if the observations do not hold them."""
        here, shown = self.config, getattr(self.env, "config", None)
        same = getattr(shown, "features", None) == here.features
        if here.features == "stabilised":
            same = same and here.slots == 1 and getattr(shown, "stabilise", None) == here.stabilise
        if not same:
            return None
        rows = observations.unflatten(-1, (self._users(), -1)).transpose(1, 2).flatten(0, 1)
        size = feature_size(here.features, self.system.array_shape, self.system.num_subcarriers)
        valid = rows[..., size + 1] > 0
        shown_system = csi_system(self.env, self.name)
        # The environment standardises with its own averages, the network was trained with those of its scene.
        mean, deviation = (rows.new_tensor(v) for v in (shown_system.log_gain_mean, shown_system.log_gain_std))
        log_gain = rows[..., size] * _LOG_GAIN_SCALE * deviation + mean
        mean, deviation = (rows.new_tensor(v) for v in (self.system.log_gain_mean, self.system.log_gain_std))
        standard = ((log_gain - mean) / deviation).clamp(min=-_LOG_GAIN_SCALE)
        standard = torch.where(valid, standard, torch.full_like(standard, -_LOG_GAIN_SCALE))
        features = as_images(rows[..., :size], here, self.system)
        return Batch(features, standard, valid, rows.new_zeros((len(rows), 3))).to(self.config.device)

    def _users(self) -> int:
        return int(self.env.entities.count)

    def _entity_size(self) -> int:
        return int(self.env.entities.observation_size)


class EccFast(Ecc):
    """``ecc`` with multilayer perceptrons at both ends: trains in minutes of one CPU core."""

    name: ClassVar[str] = "ecc-fast"
    config_class: ClassVar[type[Settings]] = EccFastAgentConfig


def csi_system(env: Any, name: str) -> CsiSystem:
    """The constants of an environment that measures CSI.

    Args:
        env: batched environment.
        name: of the agent, for the message.

    Raises:
        ValueError: another kind of environment.
    """
    system = getattr(getattr(env, "scenario", None), "system", None)
    if not isinstance(system, CsiSystem):
        raise ValueError(
            f"{name} needs an environment that measures CSI, got {getattr(env, 'env_id', type(env).__name__)}; "
            "use one whose id begins with ecc-."
        )
    return system


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, np.ndarray)) else value
