"""POST /users/export/ids.

https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier/
"""

from collections.abc import Iterator
from typing import Any

import attrs

from braze_export.sandbox.checks import Fields
from braze_export.sandbox.messages import Answer, Request, bad_request, encode
from braze_export.sandbox.people import Alias, People
from braze_export.sandbox.profiles import Profiles
from braze_export.sandbox.settings import Settings

_MAX_IDS = 50
_TOO_MANY = "The max number of external_ids and aliases per request was exceeded"

# Documented: of these only one per request.
_EXCLUSIVE = ("device_id", "email_address", "phone")

# Requests that want these do not get the faster limit.
_SLOW_FIELDS = ("campaigns_received", "canvases_received")

# An odd number with well mixed bits, to shuffle by.
_SHUFFLE = 0x9E37_79B9_7F4A_7C15


@attrs.frozen(kw_only=True)
class Query:
    """The identifiers of a request, and the fields it wants; None: all."""

    external_ids: list[str]
    aliases: list[Alias]
    scalars: dict[str, str]
    fields: frozenset[str] | None

    @property
    def names(self) -> list[str]:
        """What each identifier is called among ``invalid_user_ids``.

        Undocumented: how an alias looks there; here by its name.
        """
        return [*self.external_ids, *(a.name for a in self.aliases), *self.scalars.values()]


class IdsExport:
    """Answers with the profiles of the users that were asked for."""

    def __init__(self, settings: Settings, people: People, profiles: Profiles) -> None:
        self._settings = settings
        self._people = people
        self._profiles = profiles

    def __call__(self, request: Request, _now: float) -> Answer:
        """Check, look up, answer.

        Undocumented: duplicates. Each user and each unknown identifier is told once.
        """
        query = parse(request.json)
        self._check(query)
        found: dict[int, None] = {}
        unknown: dict[str, None] = {}
        for name, numbers in zip(query.names, self._look_up(query), strict=True):
            found.update(dict.fromkeys(numbers))
            if not numbers:
                unknown[name] = None
        parts = self._profiles.users(_reordered(list(found)), query.fields)
        if unknown:
            parts += (b',"invalid_user_ids":', encode(list(unknown)))
        body = b"".join((b'{"message":"success","users":', *parts, b"}"))
        return Answer(body=body, identifiers=len(query.names))

    def _look_up(self, query: Query) -> Iterator[tuple[int, ...]]:
        people = self._people
        yield from map(people.by_external_id, query.external_ids)
        yield from map(people.by_alias, query.aliases)
        finders = {
            "braze_id": people.by_braze_id,
            "device_id": people.by_device_id,
            "email_address": people.by_email,
            "phone": people.by_phone,
        }
        yield from (finders[kind](value) for kind, value in query.scalars.items())

    def _check(self, query: Query) -> None:
        exclusive = [kind for kind in _EXCLUSIVE if kind in query.scalars]
        if not query.names:
            raise bad_request("No identifier was given")
        if len(query.external_ids) + len(query.aliases) > _MAX_IDS:
            raise bad_request(_TOO_MANY)
        # The page's own example mixes all kinds, against its words: hence the option.
        if self._settings.strict_identifiers and exclusive and len(query.names) > 1:
            raise bad_request(f"{exclusive[0]} must be the only identifier of a request")
        if self._settings.fields_required and query.fields is None:
            raise bad_request("fields_to_export is required")
        if not self._settings.poisoned.isdisjoint(query.names):
            raise bad_request()


def parse(json: Any) -> Query:
    """Read the body of a request.

    Undocumented: an empty list of fields. Here it counts as none given.
    """
    fields = Fields(json)
    query = Query(
        external_ids=fields.texts("external_ids"),
        aliases=fields.aliases("user_aliases"),
        scalars=fields.given("braze_id", *_EXCLUSIVE),
        fields=frozenset(fields.texts("fields_to_export")) or None,
    )
    fields.finish()
    return query


def is_fast(json: Any) -> bool:
    """Tell whether a request meets the conditions of the faster limit."""
    wanted = json.get("fields_to_export") if isinstance(json, dict) else None
    return (
        isinstance(wanted, list)
        and bool(wanted)
        and not any(field in wanted for field in _SLOW_FIELDS)
    )


def _reordered(numbers: list[int]) -> list[int]:
    """Return the users in another order than that of the request.

    Undocumented: the order of the answer. Whoever relies on it shall notice here.
    """
    shuffled = sorted(numbers, key=lambda n: n * _SHUFFLE % 2**64)
    return shuffled[::-1] if shuffled == numbers else shuffled
