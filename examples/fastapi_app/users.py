"""Look-ups: one user, and many as a stream."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Body, Depends, HTTPException, Response

from braze_export import InvalidUserId, UserProfile
from braze_export.batches.ids_export import IdsExport
from braze_export.integrations.fastapi import (
    BRAZE_RESPONSES,
    Braze,
    NdjsonResponse,
    Problem,
    ndjson,
    within,
)
from examples.fastapi_app.ids import Id

#: Named, because workspaces made since 2024-08-22 must, and Braze then answers faster.
FIELDS: Final = ("external_id", "email", "first_name", "last_name", "country", "created_at")
_MOST: Final = 100_000  # ids of one request
Ids = Annotated[list[Id], Body(max_length=_MOST, examples=[["u1", "u2", "nobody"]])]

router = APIRouter(tags=["users"], responses=BRAZE_RESPONSES)
in_time = within(2.0)


@router.get(
    "/users/{external_id:path}",  # ids may hold slashes
    summary="Look one user up",
    dependencies=[Depends(in_time)],
    responses={404: {"model": Problem, "description": "Nobody has this id"}},
)
async def look_up(external_id: Id, braze: Braze) -> UserProfile:
    """Return one profile. Look-ups of the same moment share requests to Braze, 50 in each."""
    profile = await braze.users.get(external_id, fields=FIELDS)
    if profile is None:
        raise HTTPException(404, "Nobody has this id.")
    return profile


@router.post("/users/lookup", summary="Look many users up", response_class=NdjsonResponse)
async def look_up_many(ids: Ids, braze: Braze) -> Response:
    """Stream a line for each user as it comes, just as Braze sent it, or `{"unknown_id": ...}`."""
    return ndjson(_lines(braze.users.export_ids(ids, fields=FIELDS, into=bytes)))


async def _lines(export: IdsExport[bytes]) -> AsyncIterator[bytes]:
    async with export:  # when the client hangs up, the requests to Braze end
        async for item in export:
            if isinstance(item, InvalidUserId):
                yield json.dumps({"unknown_id": item.identifier}).encode()
            else:
                yield item
