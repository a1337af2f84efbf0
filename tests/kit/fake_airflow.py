"""An Airflow that answers the command's requests from memory and keeps what it saw."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

Json = dict[str, Any]
Answer = Callable[[httpx.Request], httpx.Response] | httpx.Response | Json

PAGE = "/scorecard-backfill"


@dataclass
class FakeAirflow:
    """Answers by method and path; anything else is 404, as at Airflow. ``seen``: method, path, query, body."""

    token: str = "the-token"
    password: str = "the-password"
    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        path = request.url.path
        body = json.loads(request.content) if request.content else None
        if path == "/auth/token":
            good = body == {"username": "joe", "password": self.password}
            answer = {"access_token": self.token} if good else {"detail": "Invalid credentials"}
            return httpx.Response(201 if good else 401, json=answer)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return httpx.Response(401, json={"detail": "Not authenticated"})
        self.seen.append((request.method, path, dict(request.url.params), body))
        found = self.answers.get((request.method, path), httpx.Response(404, json={"detail": "Not Found"}))
        if callable(found):
            return found(request)
        return found if isinstance(found, httpx.Response) else httpx.Response(200, json=found)

    def deeds(self) -> list[tuple[str, Json, Any]]:
        """What was asked to be done: path, query and body of each request that is no look."""
        return [(path, query, body) for method, path, query, body in self.seen if method != "GET"]
