"""The agents ``ecc`` and ``ecc-fast``: base stations that send bits, a central unit that answers with positions."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Collection, Iterator
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.checkpoints import State
from cfpos_envs.front_ends.base import BatchedEnv
from cfpos_envs.front_ends.parallel import ParallelEnv
from cfpos_envs.front_ends.vector import VectorEnv
from cfpos_envs.measurements.base import PositionEstimate, Reason
from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.physics.ecc.features import feature_size
from cfpos_envs.scenarios.ecc.game import EccScenario
from cfpos_envs.settings import Settings
from cfpos_envs.streams import derive_seed
from cfpos_envs.supervised.agent_config import EccAgentConfig, EccFastAgentConfig
from cfpos_envs.supervised.beliefs import Answers
from cfpos_envs.supervised.bitstream import Messages
from cfpos_envs.supervised.calibration import Calibration, stored_calibration
from cfpos_envs.supervised.data import Batch
from cfpos_envs.supervised.doubts import judge
from cfpos_envs.supervised.inputs import as_images, network_shape, snapshots
from cfpos_envs.supervised.loading import load_weights
from cfpos_envs.supervised.network import EccNetwork

from ..base import Plan
from ..environments import as_vector_env
from .training import EccLearner, Training, calibrated, fresh_places

# What an observation holds after the features: log gain, validity, ...; see ``scenarios.ecc.observe``.
_LOG_GAIN_SCALE = 4.0


class Ecc(EccLearner):
    """Edge-cloud cooperative positioning: encode at every BS, decode and locate at the CU, all BSs report its answer.

    Everything between the two is real: ``encode`` gives packed bytes, ``decode`` reads nothing else.

    Args:
        env: an environment that measures CSI: id, VectorEnv or ParallelEnv.
        config: settings.

    Attributes:
        messages: what the base stations sent last.
        calibration: what covariances are stated by; None: none are.

    Raises:
        ValueError: an environment without CSI, or settings that its CSI cannot serve.
    """

    name: ClassVar[str] = "ecc"
    config_class: ClassVar[type[Settings]] = EccAgentConfig
    shares_batches: ClassVar[bool] = True
    # It makes its inputs from the CSI where the environment shows others.
    signature_parts: ClassVar[Collection[str]] = ("family", "action")
    env: VectorEnv

    def __init__(self, env: object, config: EccAgentConfig) -> None:
        self.config = config
        batched = as_vector_env(env, config.num_envs, config.seed, config.device)
        self.game = csi_game(batched, self.name)
        assert isinstance(batched, VectorEnv)
        self.env = batched
        # The measurements to act on are those of the environment that was handed in, not of one made from it.
        self.player: ParallelEnv | VectorEnv = env if isinstance(env, ParallelEnv) else batched
        self.system = self.game.system
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "weights"))
        self.network = EccNetwork(config, network_shape(config, self.system), generator).to(config.device).eval()
        self.messages: Messages | None = None
        self.calibration: Calibration | None = None

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

    def run(self, plan: Plan) -> dict[str, float]:
        """Make a pool of labelled snapshots, train on it, keep the averaged weights of the end.

        ``plan.total_steps`` counts snapshots seen in the (second) training stage, with repetition; None:
        ``config.samples``, or as planned on resuming. On resuming the pool is made again. Our own figures
        (reconstruction and phase, ADCPM, distribution of errors) go beside the caller's.

        Returns:
            ``steps``, ``mean_m``, ``median_m`` and ``p90_m`` on snapshots set aside, ``pool_cpu_s``, ``train_cpu_s``.
        """
        return Training(self, plan).run()

    def calibrate(self, places: int | None = None, progress: bool | None = None) -> Calibration:
        """Learn what the errors of the present network are like: ``locate`` then states covariances and regions.

        Training does so by itself at its end. This is for a network that has been trained without.

        Args:
            places: to set aside; None: ``config.set_aside`` or its default, or all that training has left out.
            progress: show a bar; None: only on a terminal.

        Raises:
            ValueError: too few places, or an environment whose places have all been trained on.
        """
        self.calibration = calibrated(self, fresh_places(self, places, progress).pool)
        return self.calibration

    def locate(self, measurements: object) -> PositionEstimate:
        """Positions [B, J, 3] of all users from the transmitted bits, with covariances and regions where calibrated.

        Invalid where no BS hears the user, gains are none of the training's, the answer lies outside of its area, or
        the stated deviation is hardly less than that of any place: a valid answer is one to something like the
        training, not a good one.

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
        judged = judge(self.system, batch, self._answers(batch), self.calibration, self.network)
        shape, device = measurements.csi.shape[:2], measurements.csi.device

        def by_user(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.unflatten(0, shape).to(device)

        why = judged.reason.unflatten(0, shape).to(device)
        return PositionEstimate(
            judged.position_m.unflatten(0, shape).to(device),
            by_user(judged.covariance_m2),
            why == int(Reason.VALID),
            why,
            radii=by_user(judged.radii),
        ).moved(measurements.origin_m)

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
            position = self.locate(self.player.measurements).position
        else:
            position = self._positions(batch).unflatten(0, (observations.shape[0], -1))
        normalised = self.system.normalise_position(position.to(observations.device)).clamp(-1.0, 1.0)
        padding = self.game.action_size // self._users - 3
        actions = torch.nn.functional.pad(normalised, (0, padding)).reshape(len(observations), 1, -1)
        return actions.expand(-1, observations.shape[1], -1)

    @contextlib.contextmanager
    def playing(self, env: ParallelEnv | VectorEnv) -> Iterator[None]:
        """Inside, ``act_batch`` looks at the measurements of this environment, not of the one the agent was made for.

        Args:
            env: one like it, e.g. for a picture of an episode.
        """
        before, self.player = self.player, env
        try:
            yield
        finally:
            self.player = before

    def network_state(self) -> State:
        """A copy of the networks and the constants of the network of base stations."""
        state: State = {
            "system": dataclasses.asdict(self.system),
            "network": copy.deepcopy(self.network.state_dict()),
        }
        # Where there is none, files look as they did before there were any.
        return state if self.calibration is None else {**state, "calibration": self.calibration.state()}

    def check_game(self, state: State) -> None:
        """ValueError if ``state`` belongs to another network of base stations, or to another game."""
        there = _stored_system(state)
        compared = ("num_bs", "num_slots", "array_shape", "num_subcarriers", "area_min_m", "area_max_m")
        for name in (*compared, "element_positions_m"):
            if getattr(there, name) != getattr(self.system, name):
                raise ValueError(
                    f"the checkpoint was trained with {name}={getattr(there, name)}, this environment has "
                    f"{getattr(self.system, name)}; make the environment with the training overrides."
                )
        # Files of the builds before name no game; their base stations say enough.
        if "signature" in state:
            super().check_game(state)

    def load_networks(self, state: State) -> None:
        """Take over networks from ``network_state``; ``check_game`` has looked at what they are for."""
        # Everything is looked at before anything changes.
        calibration = stored_calibration(state, self.network.head.num_doubts, self.system.num_bs)
        system = _stored_system(state)
        load_weights(self.network, state["network"], self.config.head)
        self.system, self.calibration = system, calibration

    def _positions(self, batch: Batch) -> Float[Tensor, "S 3"]:
        return self._answers(batch).belief.position_m

    def _answers(self, batch: Batch) -> Answers:
        self.network.eval()
        if self.network.layout.bits == 0:
            return self.network.answers(batch)
        self.messages = self.network.encode(batch)
        return self.network.read(self.messages)

    def _from_observations(self, observations: Tensor) -> Batch | None:
        """The base stations' inputs out of their observations; None if the observations do not hold them."""
        here, shown = self.config, self.game.config
        same = shown.features == here.features
        if here.features == "stabilised":
            same = same and here.slots == 1 and shown.stabilise == here.stabilise
        if not same:
            return None
        rows = observations.unflatten(-1, (self._users, -1)).transpose(1, 2).flatten(0, 1)
        size = feature_size(here.features, self.system.array_shape, self.system.num_subcarriers)
        valid = rows[..., size + 1] > 0
        # The environment standardises with its own averages, the network was trained with those of its scene.
        standardised = self.game.system
        mean, deviation = (rows.new_tensor(v) for v in (standardised.log_gain_mean, standardised.log_gain_std))
        log_gain = rows[..., size] * _LOG_GAIN_SCALE * deviation + mean
        mean, deviation = (rows.new_tensor(v) for v in (self.system.log_gain_mean, self.system.log_gain_std))
        standard = ((log_gain - mean) / deviation).clamp(min=-_LOG_GAIN_SCALE)
        standard = torch.where(valid, standard, torch.full_like(standard, -_LOG_GAIN_SCALE))
        features = as_images(rows[..., :size], here, self.system)
        return Batch(features, standard, valid, rows.new_zeros((len(rows), 3))).to(self.config.device)

    @property
    def _users(self) -> int:
        return self.game.config.num_ues


class EccFast(Ecc):
    """``ecc`` with multilayer perceptrons at both ends: trains in minutes of one CPU core."""

    name: ClassVar[str] = "ecc-fast"
    config_class: ClassVar[type[Settings]] = EccFastAgentConfig


def csi_game(env: BatchedEnv, name: str) -> EccScenario:
    """The game of an environment that measures CSI.

    Args:
        env: batched environment.
        name: of the agent, for the message.

    Raises:
        ValueError: another kind of environment.
    """
    if not isinstance(env.scenario, EccScenario):
        raise ValueError(
            f"{name} needs an environment that measures CSI, got {env.env_id}; use one whose id begins with ecc-."
        )
    return env.scenario


def _stored_system(state: State) -> CsiSystem:
    listed: State = {name: tuple(v) if isinstance(v, list) else v for name, v in state["system"].items()}
    return CsiSystem(**listed)
