"""Ids as they come in requests, and what is answered to one that cannot be an id."""

from typing import Annotated, Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError


def _check(text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half a character: JSON can hold it
        size = 0
    if not 0 < size <= 997 or text.isspace():  # Braze's SDKs take no longer ones
        raise PydanticCustomError("id", "An id has 1 to 997 bytes of valid UTF-8, not all blank")
    return text


Id = Annotated[str, AfterValidator(_check)]


async def malformed(_: Request, error: Any) -> JSONResponse:
    """Answer 422 as FastAPI does, but without the input: it is personal, or no Unicode at all."""
    problems = [{name: item[name] for name in ("type", "loc", "msg")} for item in error.errors()]
    return JSONResponse({"detail": problems}, 422)
