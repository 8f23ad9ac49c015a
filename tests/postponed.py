"""Classes whose annotations are text until someone asks for them."""

from __future__ import annotations

import dataclasses
from datetime import datetime

import attrs


@attrs.frozen
class Device:
    model: str
    os: str | None


@attrs.frozen
class User:
    external_id: str
    created_at: datetime | None
    devices: list[Device]


@dataclasses.dataclass(frozen=True, slots=True)
class Person:
    external_id: str
    devices: tuple[Device, ...]
    first_name: str = "nobody"
