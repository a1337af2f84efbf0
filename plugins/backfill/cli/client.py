"""The page's JSON routes and Airflow's public REST API, with answers as values and refusals as exit codes."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from backfill.api.plugin import URL_PREFIX
from backfill.cli.errors import CommandError, refused, unreachable, usage
from backfill.cli.login import Login
from include.scorecard_backfill.foreign import ForeignJson

Model = TypeVar("Model", bound=BaseModel)

TIMEOUT_SECONDS = 30.0
LONGEST_DETAIL = 500


class Missing(CommandError):
    """The server has no such route, run or DAG (404)."""


class Client:
    """One Airflow. Every refusal is a CommandError; no secret is in any of its texts."""

    def __init__(self, login: Login, transport: httpx.BaseTransport | None = None) -> None:
        self._login = login
        self._token = login.token
        self._http = httpx.Client(base_url=login.url, timeout=TIMEOUT_SECONDS, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    @property
    def url(self) -> str:
        """Airflow's address."""
        return self._login.url

    def look(self, model: type[Model], path: str, **query: str) -> Model:
        """Return what a route of the page says."""
        answer = self._request("GET", f"{URL_PREFIX}{path}", params=query)
        try:
            return model.model_validate_json(answer.content)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
            raise unreachable(
                f"{path} of {self.url} answers in another form (at {where or 'the top'}): this command and the plugin"
                " of the server must be of the same release; another program may answer there, too."
            ) from None

    def text(self, path: str, **query: str) -> str:
        """Return a file that the page offers."""
        return self._request("GET", f"{URL_PREFIX}{path}", params=query).text

    def act(self, path: str, body: Mapping[str, Any], **query: str) -> ForeignJson:
        """Do what a button of the page does, and return what was done."""
        return _json(self._request("POST", f"{URL_PREFIX}{path}", params=query, json=dict(body)), self.url)

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run as Airflow's form does, and return its id."""
        body = {"logical_date": None, "conf": dict(conf)}
        answer = self._request("POST", f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns", json=body)
        return str(_json(answer, self.url)["dag_run_id"])

    def dag(self, dag_id: str) -> ForeignJson:
        """Return Airflow's record of a DAG. Raises Missing when there is none."""
        return _json(self._request("GET", f"/api/v2/dags/{quote(dag_id, safe='')}"), self.url)

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        if not self._token:
            self._token = self._log_in()
        answer = self._send(method, path, headers={"Authorization": f"Bearer {self._token}"}, **options)
        if answer.status_code == httpx.codes.NOT_FOUND and path == f"{URL_PREFIX}/clusters":
            raise unreachable(
                f"{self.url} has no page {URL_PREFIX}: is it the Airflow with the plugin of the backfills?"
            )
        _raise_for(answer, self.url)
        return answer

    def _log_in(self) -> str:
        body = {"username": self._login.user, "password": self._login.password}
        answer = self._send("POST", "/auth/token", json=body)
        if answer.status_code in (400, 401, 403, 422):
            raise unreachable(f"{self.url} does not accept the login of {self._login.user}: check user and password.")
        if answer.status_code in (404, 405):
            raise unreachable(f"{self.url} gives no token for a password: log in there and set a token instead.")
        _raise_for(answer, self.url)
        return str(_json(answer, self.url).get("access_token") or "")

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            done = " Whether it was done is not known: look at `status` first." if method == "POST" else ""
            text = f"{self.url} cannot be reached ({type(error).__name__}: {error}).{done}"
            raise unreachable(f"{text} Check the address and the way to it.") from None


def _json(answer: httpx.Response, url: str) -> ForeignJson:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise unreachable(f"{answer.request.url.path} of {url} answers with no JSON: is this the address of Airflow?")
    return found


def _raise_for(answer: httpx.Response, url: str) -> None:
    """Raise the error of an answer that is none of 2xx."""
    status = answer.status_code
    if answer.is_success:
        return
    said = _detail(answer)
    where = f"{answer.request.method} {answer.request.url.path}"
    if answer.is_redirect:
        to = httpx.URL(answer.headers.get("location", "")).copy_with(query=None, fragment=None)
        raise unreachable(f"{url} sends {where} on to {to}: give the address that Airflow itself has.")
    if status == httpx.codes.UNAUTHORIZED:
        raise unreachable(f"{url} does not know this login (HTTP 401): the token may have expired; get a new one.")
    if status == httpx.codes.FORBIDDEN:
        raise unreachable(f"Not allowed ({where}, HTTP 403): {said or 'ask for the right in Airflow'}")
    if status == httpx.codes.NOT_FOUND:
        raise Missing(said or f"{where}: not found (HTTP 404)", 1)
    if status == httpx.codes.CONFLICT:
        raise refused(said or f"{where}: refused (HTTP 409)")
    if status in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY):
        raise usage(f"{where}: {said or f'HTTP {status}'}")
    raise unreachable(f"{url} cannot answer {where} (HTTP {status}): {said or 'see the log of its API server'}")


def _detail(answer: httpx.Response) -> str:
    """Return what the server says about its refusal: FastAPI's `detail`, a text or a list of problems."""
    try:
        detail = answer.json().get("detail", "")
    except (ValueError, AttributeError):
        return ""
    if isinstance(detail, list):
        # The value that was refused is left out: it may be long, and a person has just typed it.
        detail = "; ".join(
            f"{'.'.join(str(part) for part in item.get('loc', ())[1:])}: {item.get('msg', '')}"
            for item in detail
            if isinstance(item, dict)
        )
    return str(detail)[:LONGEST_DETAIL]
