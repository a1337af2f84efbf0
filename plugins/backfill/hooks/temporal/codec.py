"""A remote codec, as Temporal's own web pages use it: it decodes the payloads that workers have encrypted.

What it decodes is decoration (progress, failure texts, inputs): where it does not answer, they are not known.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Sequence
from functools import cache
from urllib.parse import urlsplit

import httpx
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import PayloadCodec

TIMEOUT_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""After a failure the endpoint is left alone for this long, so that it does not slow down every look."""

log = logging.getLogger(__name__)


class CodecError(Exception):
    """The endpoint did not decode; the text names its address and no credential."""


class RemoteCodec(PayloadCodec):
    """Decodes by ``POST <endpoint>/decode``. ``auth`` is the value of the Authorization header, '' for none."""

    def __init__(self, endpoint: str, namespace: str, auth: str = "") -> None:
        self._url = endpoint.replace("{namespace}", namespace).rstrip("/") + "/decode"
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("extra.codec_endpoint must be an http(s) address")
        if parts.username or parts.password:
            raise ValueError("extra.codec_endpoint may not hold credentials; put them into extra.codec_auth")
        self.address = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self._headers = {"Content-Type": "application/json", "X-Namespace": namespace}
        if auth:
            self._headers["Authorization"] = auth
        self._silent_until = 0.0

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Refuse: nothing here starts workflows."""
        raise NotImplementedError("this codec only decodes")

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return the decoded payloads, as many as were given. Raises CodecError."""
        if time.monotonic() < self._silent_until:
            raise CodecError(f"codec at {self.address} has failed less than {SILENT_SECONDS:.0f} s ago")
        try:
            return await self.ask(payloads)
        except CodecError as error:
            self._silent_until = time.monotonic() + SILENT_SECONDS
            log.warning("%s; progress and texts of encrypted payloads are not known", error)
            raise

    async def ask(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Ask the endpoint, also soon after a failure. Raises CodecError."""
        body = json_format.MessageToJson(Payloads(payloads=payloads))
        try:
            verify = await asyncio.to_thread(_trust)
            async with httpx.AsyncClient(verify=verify, timeout=TIMEOUT_SECONDS) as client:
                answer = await client.post(self._url, content=body, headers=self._headers)
        except httpx.HTTPError as error:
            # The error's own text may hold the whole address.
            raise CodecError(f"codec at {self.address} cannot be reached ({type(error).__name__})") from None
        if answer.status_code != httpx.codes.OK:
            raise CodecError(
                f"codec at {self.address} answers {answer.status_code} {answer.reason_phrase}; check"
                " extra.codec_endpoint and extra.codec_auth"
            )
        try:
            decoded = json_format.Parse(answer.text, Payloads(), ignore_unknown_fields=True).payloads
        except (json_format.ParseError, json.JSONDecodeError, UnicodeError):
            raise CodecError(f"codec at {self.address} answers something else than payloads") from None
        if len(decoded) != len(payloads):
            raise CodecError(f"codec at {self.address} answers {len(decoded)} payloads for {len(payloads)}")
        return list(decoded)


@cache
def _trust() -> ssl.SSLContext:
    """Reading the trusted certificates blocks for a moment, so it is done once, outside the event loop."""
    return ssl.create_default_context()
