"""The option ``site`` of every game: a preset, a person's own file, or a mapping that changes any field of either.

``site="hard"``, ``site="hall.yaml"``, ``site={"preset": "hard", "bandwidth_hz": 2e5}`` and
``site={"file": "hall.yaml", "shadowing_db": 3.0}`` all name a base and the fields that differ from it. Options of the
game that are called like a field of the site (``bandwidth_hz=2e5``) are put on top of preset and file; what the mapping
sets they may not set to something else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar, cast

from cfpos_envs.checks import nearest, shown
from cfpos_envs.fields import Declared, check_fields
from cfpos_envs.scenarios.site_files import SiteFile, checked_fields, load_site_file, on_square, site_base

SiteT = TypeVar("SiteT")

_BASES = ("preset", "file")


@dataclass(frozen=True)
class SiteChoice:
    """What the option ``site`` says.

    Attributes:
        preset: the named site that the fields start from.
        file: a person's own site.
        fields: what differs from the preset, by the file and by the mapping.
    """

    preset: str
    file: SiteFile | None
    fields: Mapping[str, Any]


def given_fields(config_class: type, options: Any) -> dict[str, Any]:
    """The options that are called like a field of ``config_class`` and are not None."""
    values = {entry.name: getattr(options, entry.name, None) for entry in dataclasses.fields(config_class)}
    # YAML and JSON know no tuples.
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if value is not None
    }


class SiteOptions(Declared, Generic[SiteT]):
    """Base of the config of a game that has a site; the subclass is a frozen dataclass with the field ``site``.

    Attributes:
        site_presets: name -> config of a site.
        own_preset: what a person's own site starts from unless it names another; None: the game takes no files.
        own_fields: fields of a person's own site, unless the file sets them.
    """

    site_presets: ClassVar[Mapping[str, Any]]
    own_preset: ClassVar[str | None] = None
    own_fields: ClassVar[Mapping[str, Any]] = {}

    site: str | Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.site, (str, Mapping)):
            raise ValueError(self._unknown(self.site))
        site_class = type(next(iter(self.site_presets.values())))
        check_fields(self, site_class)
        # One spelling for one site: a mapping that changes nothing is the name in it.
        if isinstance(self.site, Mapping):
            (name, value), *changes = self.site.items() or [("", "")]
            object.__setattr__(self, "site", value if name in _BASES and not changes else dict(self.site))

    @cached_property
    def site_choice(self) -> SiteChoice:
        """What ``site`` says.

        Raises:
            ValueError: unknown preset or field, with the nearest name; a value of the wrong kind; a field that an
                option of the game sets to something else; a bad file.
        """
        default = type(self).__dataclass_fields__["site"].default  # type: ignore[attr-defined]
        said = dict(self.site) if isinstance(self.site, Mapping) else self._by_name(self.site)
        path, preset = said.pop("file", None), said.pop("preset", None)
        config_class = type(self.site_presets[default])
        if path is not None and self.own_preset is None:
            raise ValueError(f"site file {path!r}: this game has no site files; name a preset")
        file = None if path is None else load_site_file(str(path), config_class)
        if preset is None:
            preset = default if file is None else file.preset or self.own_preset
        if preset not in self.site_presets:
            raise ValueError(self._unknown(preset))
        fields = {} if file is None else {**self.own_fields, **file.fields}
        changes = checked_fields(said, config_class, "site", _BASES)
        _check_said_once(changes, given_fields(config_class, self))
        fields.update(changes)
        if file is not None:
            side = given_fields(config_class, self).get("side_m", fields.get("side_m"))
            file, fields["side_m"] = on_square(file, side)
        return SiteChoice(preset, file, fields)

    @property
    def site_file(self) -> SiteFile | None:
        """The user's own site, if ``site`` names a file, in the square on which the game is played."""
        return self.site_choice.file

    @cached_property
    def settings(self) -> SiteT:
        """The config of the site in force: the preset, what ``site`` changes, and this config's own site fields."""
        return self.changed_site(self.site_choice.preset)

    def changed_site(self, preset: str) -> SiteT:
        """Another preset with the same changes.

        Raises:
            ValueError: another number of APs than the site file has.
        """
        base, file = self.site_presets[preset], self.site_file
        fields = {**self.site_choice.fields, **given_fields(type(base), self)}
        if file is not None:
            count = len(file.ap_positions_m)
            if fields.setdefault("num_aps", count) != count:
                raise ValueError(
                    f"num_aps={fields['num_aps']}, but site file {file.path!r} has {count}; drop the override"
                )
        return cast(SiteT, dataclasses.replace(base, **fields))

    @property
    def site_text(self) -> str:
        """How ``describe`` calls the site: preset or file, and every field that differs from the preset."""
        choice = self.site_choice
        base, file = self.site_presets[choice.preset], choice.file
        name = repr(choice.preset) if file is None else f"{file.path!r} (from {choice.preset!r})"
        values = [(entry.name, getattr(self.settings, entry.name)) for entry in dataclasses.fields(base)]
        changed = [f"{key}={value}" for key, value in values if value != getattr(base, key)]
        return f"{name}{' with ' * bool(changed)}{', '.join(changed)}"

    def _by_name(self, site: Any) -> dict[str, Any]:
        if isinstance(site, str):
            if site in self.site_presets:
                return {"preset": site}
            if self.own_preset is not None and site_base(site) == "file":
                return {"file": site}
        raise ValueError(self._unknown(site))

    def _unknown(self, name: Any) -> str:
        file = "" if self.own_preset is None else " or a .yaml, .csv or .geojson file"
        known = self.site_presets
        return f"unknown site {shown(name)}; choose one of {', '.join(known)}{file}{nearest(name, known)}"


def _check_said_once(by_site: Mapping[str, Any], by_options: Mapping[str, Any]) -> None:
    for name, value in by_site.items():
        said = tuple(value) if isinstance(value, list) else value
        if name in by_options and by_options[name] != said:
            raise ValueError(
                f"site sets {name}={value}, and {name}={by_options[name]} is given too; give one of the two"
            )
