"""Classifying failed requests: a retry may help, or the failure is final."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from pipeline.errors import PipelineError

_LIBRARIES = {"aiohttp", "aiobotocore", "botocore", "gcsfs", "google", "http", "obstore", "urllib3"}
# statuses that are final, unless named below
_FINAL = {400, 405, 406, 410, 411, 413, 414, 415, 416, 501}
_OBSTORE = re.compile(r"returned non-2xx status code: (\d{3})")
_BY_NAME = {  # recognised by name, since their packages are optional and not imported
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
    "TooManyRedirects": 400,
}


WHOLE = "the server sends whole files, no ranges of them"
_NO_RANGES = re.compile("Range request not supported|non-partial response")  # of obstore


class TruncatedError(OSError):
    """A response body that is shorter than the range."""


class WrongRangeError(OSError):
    """A response body with other bytes than those requested, by the server's own account."""


class RangesIgnoredError(OSError):
    """The server does not send the bytes of a range, or does not tell which it sends."""


class Verdict(NamedTuple):
    """The verdict on one failed request.

    Attributes:
        kind: "passing" if a retry may succeed. Else "missing" (the object, or its version with the
            tag asked for, does not exist), "forbidden", "whole" (the server cannot send the bytes
            of a range), "refused", or "told" (a PipelineError, which is raised as it is).
        reason: what happened, in words.
    """

    kind: str
    reason: str


def judge(error: BaseException) -> Verdict:
    """Classify the error of a request.

    >>> judge(ConnectionResetError("by peer")), judge(PermissionError("no")).kind
    (Verdict(kind='passing', reason='ConnectionResetError: by peer'), 'forbidden')
    """
    if isinstance(error, PipelineError):
        return Verdict("told", str(error))
    if isinstance(error, TimeoutError) and not str(error):
        return Verdict("passing", "no answer in time")
    if isinstance(error, RangesIgnoredError):
        return Verdict("whole", str(error))
    if _NO_RANGES.search(str(error)):
        return Verdict("whole", WHOLE)
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
    """The HTTP status that an error stands for, or None."""
    if isinstance(error, FileNotFoundError):
        return 404
    if isinstance(error, FileExistsError):  # gcsfs raises it for a failed precondition
        return 412
    if type(error).__name__ in _BY_NAME:
        return _BY_NAME[type(error).__name__]
    told = _OBSTORE.search(str(error))
    boto = _of_boto(error) or _of_boto(error.__cause__)
    # aiohttp's errors have `status`; gcsfs's have `code`, which aiohttp deprecates
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
