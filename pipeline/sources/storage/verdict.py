"""Classify errors of requests: another try may help, or none will."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from pipeline.errors import PipelineError

_LIBRARIES = {"aiohttp", "aiobotocore", "botocore", "gcsfs", "google", "http", "obstore", "urllib3"}
_FINAL = {400, 405, 406, 410, 411, 413, 414, 415, 416, 501}  # of the statuses from 400 on
_OBSTORE = re.compile(r"returned non-2xx status code: (\d{3})")
_BY_NAME = {  # classes of optional packages, which are not imported to be recognised
    "NoCredentialsError": 403,
    "PartialCredentialsError": 403,
    "DefaultCredentialsError": 403,
    "UnauthenticatedError": 401,
    "PermissionDeniedError": 403,
    "NotFoundError": 404,
    "PreconditionError": 412,
    "ParamValidationError": 400,
    "InvalidPathError": 400,
    "UnknownConfigurationKeyError": 400,
}


class TruncatedError(OSError):
    """A body that is shorter than its range."""


class WrongRangeError(OSError):
    """A body of other bytes than those asked for, by what the server says of it."""


class RangesIgnoredError(OSError):
    """A server that sends the whole file where a range was asked for."""


class Verdict(NamedTuple):
    """Of one failed request.

    Attributes:
        kind: "passing" if another try may succeed; else "missing" (the object, or the one that
            had the tag asked for), "forbidden", "refused" or "told" (the error says all itself).
        reason: what happened, in words.
    """

    kind: str
    reason: str


def judge(error: BaseException) -> Verdict:
    """What an error of a request means.

    >>> judge(ConnectionResetError("by peer")), judge(PermissionError("no")).kind
    (Verdict(kind='passing', reason='ConnectionResetError: by peer'), 'forbidden')
    """
    if isinstance(error, PipelineError):
        return Verdict("told", str(error))
    if isinstance(error, TimeoutError) and not str(error):
        return Verdict("passing", "no answer in time")
    if isinstance(error, RangesIgnoredError) or "non-partial response" in str(error):
        return Verdict("refused", str(error))
    status = status_of(error)
    reason = _words(error, status)
    if status in (404, 412):
        return Verdict("missing", reason)
    if status in (401, 403):
        return Verdict("forbidden", reason)
    if status is not None:
        return Verdict("refused" if status in _FINAL else "passing", reason)
    known = isinstance(error, OSError) or type(error).__module__.split(".")[0] in _LIBRARIES
    return Verdict("passing" if known else "refused", reason)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error stands for, as far as it says so."""
    if isinstance(error, FileNotFoundError):
        return 404
    if isinstance(error, FileExistsError):  # how gcsfs says that a precondition does not hold
        return 412
    if type(error).__name__ in _BY_NAME:
        return _BY_NAME[type(error).__name__]
    told = _OBSTORE.search(str(error))
    boto = _of_boto(error) or _of_boto(error.__cause__)
    # aiohttp's errors have a status; gcsfs' a code, which aiohttp deprecates
    named = getattr(error, "status" if hasattr(error, "status") else "code", None)
    for found in (told and told[1], boto, named):
        if isinstance(found, int | str) and str(found).isdecimal() and 400 <= int(found) < 600:
            return int(found)
    if isinstance(error, PermissionError) or str(error).startswith("Forbidden"):
        return 403
    if isinstance(error, ValueError) and str(error).startswith("Bad Request"):
        return 400
    return None


def _of_boto(error: BaseException | None) -> Any:
    response = getattr(error, "response", None)
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode") if response else None


def _words(error: BaseException, status: int | None) -> str:
    text = " ".join(str(error).partition("Debug source:")[0].split())
    text = text if len(text) <= 300 else text[:297] + "..."
    name = type(error).__name__
    said = f"{name}: {text}" if text else name
    return said if status is None or str(status) in text else f"{said} (status {status})"
