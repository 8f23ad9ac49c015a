"""The base of every record that Braze sends: immutable, compact, and quick to decode.

To attrs and cattrs a record is an attrs class: ``attrs.fields``, ``asdict``, ``evolve`` and
cattrs converters take it. Its instances are msgspec structs, because a profile of 20 KB is
made of some 150 objects, and msgspec fills its own structs twice as fast as slotted attrs
classes, whose fields it has to set and look up one by one.
"""

from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

import attrs
import msgspec

from braze_export.models.timestamps import Timestamp

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

#: Our own type is for our own decoder; everyone else knows ``datetime``.
_PLAIN: dict[Any, Any] = {Timestamp | None: datetime | None}


@cache
def _attrs_fields(cls: type[msgspec.Struct]) -> Any:
    """Return the public fields as attrs describes them."""
    hints = get_type_hints(cls)
    described = {
        f.name: attrs.field(
            default=attrs.Factory(f.default_factory)
            if f.default_factory is not msgspec.NODEFAULT
            else f.default,
            type=_PLAIN.get(hints[f.name], hints[f.name]),
        )
        for f in msgspec.structs.fields(cls)
        if not f.name.startswith("_")
    }
    return attrs.fields(attrs.make_class(cls.__name__, described, frozen=True))


class _AttrsFields:
    """Gives ``__attrs_attrs__``, by which attrs and cattrs know an attrs class."""

    def __get__(self, instance: object, owner: type[msgspec.Struct]) -> Any:
        return _attrs_fields(owner)


class Record(msgspec.Struct, frozen=True, gc=False, repr_omit_defaults=True):
    """A frozen value. Its ``repr`` leaves out what was not sent: usually most of it."""

    __attrs_attrs__: ClassVar[Any] = _AttrsFields()

    # To pydantic, and so to FastAPI, a record is a type of its own. These are its calls, not
    # ours, and the room behind them is loaded by an application with pydantic only.

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: "GetCoreSchemaHandler"
    ) -> "CoreSchema":
        from braze_export.models.pydantic_types import record_schema  # noqa: PLC0415 - optional

        return record_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: "CoreSchema", handler: "GetJsonSchemaHandler"
    ) -> dict[str, Any]:
        from braze_export.models.pydantic_types import json_schema  # noqa: PLC0415 - the same

        return json_schema(cls, handler)
