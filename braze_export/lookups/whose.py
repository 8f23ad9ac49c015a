"""Whose profile it is: the identifiers that stand in a user's JSON, and a request's answer by them.

Pure.
"""

import re
from collections.abc import Callable
from itertools import chain
from typing import Any, Final

import msgspec
from attrs import evolve, frozen

from braze_export._json import read_part
from braze_export.answers import decode_error
from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import Outcome
from braze_export.endpoints import EXPORT_IDS
from braze_export.errors import BrazeError, DecodeError, InvalidIdentifierError
from braze_export.identifiers import Identifier, UserAlias, is_unicode

# Braze sends it among the first. What stands before it here is text, numbers and words, so that it
# is the user's own, and not that of anything within; reading all of 20 KB takes ten times as long.
_MEMBER: Final = rb'\s*"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[-+.\w]+)\s*,'
_AHEAD: Final = re.compile(rb'\s*\{(?:%b)*?\s*"external_id"\s*:\s*"([^"\\]+)"' % _MEMBER)


class _WithId(msgspec.Struct, gc=False):
    external_id: str | None = None


class _Alias(msgspec.Struct, gc=False):
    alias_name: str | None = None
    alias_label: str | None = None


class _WithAliases(msgspec.Struct, gc=False):
    user_aliases: list[_Alias] | _Alias | None = None


_by_id = msgspec.json.Decoder(_WithId)
_by_alias = msgspec.json.Decoder(_WithAliases)


def names_for(identifier: Identifier) -> Callable[[msgspec.Raw], frozenset[Any]]:
    """Return what reads identifiers of this one's kind, external id or alias, out of a profile."""
    return aliases if isinstance(identifier, UserAlias) else external_ids


def external_ids(user: msgspec.Raw) -> frozenset[Any]:
    """Return the external id of a profile, if there is one and it can be read."""
    ahead = _AHEAD.match(user)
    if ahead is not None and ahead[1].isascii():
        return frozenset((ahead[1].decode(),))
    found = read_part(_by_id, user)
    name = None if found is None else found.external_id
    return frozenset() if name is None or not is_unicode(name) else frozenset((name,))


def aliases(user: msgspec.Raw) -> frozenset[Any]:
    """Return the aliases of a profile."""
    found = read_part(_by_alias, user)
    sent = None if found is None else found.user_aliases
    listed = sent if isinstance(sent, list) else [sent] if sent else []
    return frozenset(chain.from_iterable(map(_identifier, listed)))


def _identifier(alias: _Alias) -> tuple[UserAlias, ...]:
    try:
        return (UserAlias(alias.alias_name or "", alias.alias_label or ""),)
    except InvalidIdentifierError:  # blank, say: nobody can have asked for it
        return ()


def telling_fields(batch: Batch, fields: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the fields that must be asked for as well, to tell the users of a batch apart."""
    if fields is None or len(batch.identifiers) == 1:
        return ()
    kinds = {type(identifier) for identifier in batch.identifiers}
    needed = {str: "external_id", UserAlias: "user_aliases"}
    return tuple(name for kind, name in needed.items() if kind in kinds and name not in fields)


def no_profile(errors: list[str]) -> DecodeError:
    """Return the error of somebody of whom nothing has come but Braze's messages."""
    return decode_error(f"Braze sent no profile, but: {'; '.join(errors)}", endpoint=EXPORT_IDS)


@frozen
class Sorted:
    """What an outcome says of each identifier of its batch, which is in one of these.

    Attributes:
        found: the user of each.
        failed: why there is no answer for it.
        unknown: named by Braze as such.
        silent: those of whom nothing has come.
        strangers: users that do not tell whose they are.
        errors: Braze's messages of errors that left the rest untouched.
    """

    found: dict[Identifier, msgspec.Raw]
    failed: dict[Identifier, BrazeError]
    unknown: set[Identifier]
    silent: tuple[Identifier, ...]
    strangers: int
    errors: list[str]

    def given_up(self, *, alone: bool) -> "Sorted":
        """Return the same with those of whom nothing has come as unknown, or as failed.

        Args:
            alone: whether the batch had one identifier; else the messages may be about others.
        """
        if not self.errors:
            return evolve(self, unknown=self.unknown.union(self.silent), silent=())
        error = no_profile(self.errors if alone else ["errors"])
        failed = {**self.failed, **dict.fromkeys(self.silent, error)}
        return evolve(self, failed=failed, silent=())


def sort(batch: Batch, outcome: Outcome) -> Sorted:
    """Sort an outcome by identifiers."""
    found, strangers = _found(batch, outcome.users)
    failed = {i: f.error for f in outcome.failed for i in f.identifiers if i not in found}
    told = {unknown.identifier for unknown in outcome.invalid}
    unknown = told.intersection(batch.identifiers).difference(found, failed)
    rest = (i for i in batch.identifiers if i not in found and i not in failed)
    return Sorted(
        found,
        failed,
        unknown,
        tuple(i for i in rest if i not in unknown),
        strangers,
        outcome.errors,
    )


def _found(batch: Batch, users: list[msgspec.Raw]) -> tuple[dict[Identifier, msgspec.Raw], int]:
    asked = set(batch.identifiers)
    if len(asked) == 1 and users:  # an address may be that of several users: the first one
        return {batch.identifiers[0]: users[0]}, 0
    readers = {names_for(identifier) for identifier in asked}
    found: dict[Identifier, msgspec.Raw] = {}
    strangers = 0
    for user in users:
        names = asked.intersection(chain.from_iterable(read(user) for read in readers))
        strangers += not names
        for name in names:
            found.setdefault(name, user)
    return found, strangers
