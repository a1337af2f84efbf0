"""ClickHouse's own errors: code, name, HTTP status and the text that goes into the body."""

from __future__ import annotations

import re

ENGINE_VERSION = "26.9.2.1"
"""What `SELECT version()` of the pinned chDB answers; it only closes error texts."""

NAMES = {
    36: "BAD_ARGUMENTS",
    48: "NOT_IMPLEMENTED",
    57: "TABLE_ALREADY_EXISTS",
    60: "UNKNOWN_TABLE",
    62: "SYNTAX_ERROR",
    81: "UNKNOWN_DATABASE",
    159: "TIMEOUT_EXCEEDED",
    210: "NETWORK_ERROR",
    242: "TABLE_IS_READ_ONLY",
    279: "ALL_CONNECTION_TRIES_FAILED",
    281: "DICTIONARY_IS_EMPTY",
    319: "UNKNOWN_STATUS_OF_INSERT",
    341: "UNFINISHED",
    359: "TABLE_SIZE_EXCEEDS_MAX_DROP_SIZE_LIMIT",
    373: "SESSION_IS_LOCKED",
    394: "QUERY_WAS_CANCELLED",
    452: "SETTING_CONSTRAINT_VIOLATION",
    497: "ACCESS_DENIED",
    516: "AUTHENTICATION_FAILED",
    517: "CANNOT_ASSIGN_ALTER",
    692: "TOO_MANY_MUTATIONS",
    701: "CLUSTER_DOESNT_EXIST",
    999: "KEEPER_EXCEPTION",
}

# From ClickHouse's src/Server/HTTP/exceptionCodeToHTTPStatus.cpp; 516 is 401 by the sandbox's contract.
_STATUS = {
    **dict.fromkeys((6, 27, 36, 38, 41, 43, 53, 62, 69, 117, 190, 321, 457), 400),
    **dict.fromkeys((16, 46, 47, 50, 56, 60, 78, 81, 115), 404),
    48: 501,
    159: 408,
    203: 503,
    209: 503,
    497: 403,
    516: 401,
}

_CODE = re.compile(r"Code:\s*(\d+)\.\s*(.*)", re.DOTALL)
_TAIL = re.compile(r"\s*\(version [^)]*(?:\([^)]*\))?\)\s*$")


class ClickHouseError(Exception):
    """A failed statement. `code` is ClickHouse's error number, `message` the text without code and version."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message}")
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """HTTP status that the real server answers for this code (500 unless it is listed)."""
        return _STATUS.get(self.code, 500)

    def body(self) -> str:
        """The response body, in the real server's form, with the error's name and the version."""
        name = NAMES.get(self.code)
        message = self.message
        if name is not None and f"({name})" not in message:
            message = f"{message} ({name})"
        return f"Code: {self.code}. DB::Exception: {message} (version {ENGINE_VERSION} (official build))\n"


def from_text(text: str) -> ClickHouseError:
    """Read an error out of the engine's or another node's text; code 1001 when it carries none."""
    found = _CODE.search(text)
    if found is None:
        return ClickHouseError(1001, text.strip())
    message = _TAIL.sub("", found.group(2)).strip()
    message = message.removeprefix("DB::Exception: ")
    return ClickHouseError(int(found.group(1)), message)
