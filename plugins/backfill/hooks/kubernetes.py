"""Kubernetes Jobs of a cluster: one asynchronous client, which workers call with ``asyncio.run``.

Objects are plain dicts in the API's JSON form, as the server sent them: a client model would drop fields that it does
not know. The context is always named: a connection without it must never reach the cluster of somebody's current
context.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
from airflow.sdk import BaseHook
from kubernetes_asyncio.client.rest import ApiException
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_fixed

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.foreign import ForeignJson
from include.scorecard_backfill.ownership import End, Leave, Owner, adoption, may_end, owner_of
from include.scorecard_backfill.podlog import lines_of
from include.scorecard_backfill.verdicts.jobs import FIELD_MANAGER
from include.scorecard_backfill.verdicts.podreasons import QUOTA

REQUEST_TIMEOUT = (10, 30)
"""Connect and read limit of one call, in seconds; a socket that is never answered must not hang a stage."""

LOG_TAIL_LINES = 2_000
LOG_LIMIT_BYTES = 2_000_000
"""A reindex Job prints one line per workflow; two thousand lines are many times the profiles of one customer."""

NOT_FOUND = 404
CONFLICT = 409
FORBIDDEN = 403

TRIES = 5
TRY_PAUSE_SECONDS = 1.0
"""A Job whose task was ended has nobody who would delete it later; short enough for a worker that is being killed. A
conflict is looked at afresh as often: the Job controller writes the status, so that versions change by themselves."""

SOURCES = ("in_cluster", "kube_config", "kube_config_path")
"""Fields of a Kubernetes connection's extra that say which cluster it reaches."""

JSON_TYPE = "application/json"
MERGE_PATCH = "application/merge-patch+json"


class KubeConnectionError(ValueError):
    """A Kubernetes connection does not say which cluster it reaches."""


class KubeCallError(Exception):
    """A call was refused or not answered; the message names call, connection, context and namespace.

    ``status``: HTTP status, None without an answer. ``reason``: the API's own word (AlreadyExists, Forbidden, ...).
    ``detail``: the API's own sentence.
    """

    def __init__(self, text: str, status: int | None, reason: str, detail: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.detail = detail


def checked_extra(conn_id: str, extra: Mapping[str, Any]) -> ForeignJson:
    """Return a connection's extra without its empty fields. Raises KubeConnectionError when it names no cluster.

    Without one the provider takes the cluster in which Airflow itself runs, or ~/.kube/config, whatever the context.
    """
    given = {name: value for name, value in extra.items() if value not in (None, "")}
    if not any(given.get(name) or given.get(f"extra__kubernetes__{name}") for name in SOURCES):
        raise KubeConnectionError(
            f"connection {conn_id!r} names no cluster; set one of {', '.join(SOURCES)} in its extra"
            " (empty, Airflow's own cluster would be used)"
        )
    return given


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an API error, None for one that had no answer."""
    return error.status if isinstance(error, KubeCallError) else None


def brief(error: BaseException) -> str:
    """Return an error in one line of at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def is_transient(error: BaseException) -> bool:
    """Return True for errors that pass by themselves: no answer, 401 (a token is being rotated), 429 and 5xx."""
    if not isinstance(error, KubeCallError):
        return False
    return error.status is None or error.status in (0, 401, 408, 429) or error.status >= 500


def is_permission(error: BaseException) -> bool:
    """Return True for a refusal that only another right mends; a quota's refusal has the same status."""
    return isinstance(error, KubeCallError) and error.status == FORBIDDEN and QUOTA not in error.detail


class KubernetesJobs:
    """Every call is one look, and the connection lives no longer than it: a token that was rotated is read again.

    Raises KubeCallError for every call that was refused or not answered.
    """

    def __init__(
        self,
        config: ClusterConfig,
        extra: Mapping[str, Any] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``extra``: of the Airflow connection; None = it is read with each call, as a trigger must."""
        self.config = config.kubernetes
        self._extra = extra
        self._sleep = sleep

    @classmethod
    def for_worker(cls, config: ClusterConfig) -> KubernetesJobs:
        """Return the client of a worker, with the connection read now. Raises KubeConnectionError."""
        conn_id = config.kubernetes.conn_id
        return cls(config, checked_extra(conn_id, BaseHook.get_connection(conn_id).extra_dejson))

    @asynccontextmanager
    async def _api(self, what: str) -> AsyncIterator[Any]:
        conn_id = self.config.conn_id
        extra = self._extra
        if extra is None:
            extra = checked_extra(conn_id, (await BaseHook.aget_connection(conn_id)).extra_dejson)
        hook = AsyncKubernetesHook(conn_id=conn_id, cluster_context=self.config.context, connection_extras=dict(extra))
        try:
            async with hook.get_conn() as api:
                yield api
        except ApiException as error:
            # Of the client itself: it has not sent the call.
            raise self._error(what, error.status, str(error.reason), str(error.reason)) from None
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise self._error(what, None, type(error).__name__, str(error)) from error

    def _error(self, what: str, status: int | None, reason: str, detail: str) -> KubeCallError:
        answer = f"{status} {reason}" if status else f"no answer ({reason})"
        where = f"connection {self.config.conn_id!r}, context {self.config.context}, namespace {self.config.namespace}"
        hint = "; the credentials of this connection are refused" if status == 401 else ""
        return KubeCallError(f"cannot {what}: {answer}: {detail}{hint} ({where})", status, reason, detail)

    async def _call(
        self, what: str, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None,
        content_type: str = JSON_TYPE,
    ) -> ForeignJson:  # fmt: skip
        headers = {"Accept": JSON_TYPE, "Content-Type": content_type}
        raw = await self._raw(what, method, path, query, headers, body)
        try:
            found = json.loads(raw)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            # Something before the API has answered, a maintenance page for example.
            raise self._error(what, None, "not JSON", " ".join(raw.decode("utf-8", "replace").split())[:300])
        return found

    async def _raw(
        self, what: str, method: str, path: str, query: Mapping[str, Any] | None, headers: Mapping[str, str],
        body: Any = None,
    ) -> bytes:  # fmt: skip
        """Return an answer as it came: the client's own decoding fails at a byte that is not UTF-8."""
        async with self._api(what) as api:
            answer = await api.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params=dict(headers),
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=REQUEST_TIMEOUT,
            )
            raw: bytes = await answer.read()
        if not 200 <= answer.status <= 299:
            reason, detail = _status_object(str(answer.reason), raw)
            raise self._error(what, answer.status, reason, detail)
        return raw

    def _path(self, group: str, kind: str, name: str = "") -> str:
        root = f"/apis/{group}/v1" if group else "/api/v1"
        return f"{root}/namespaces/{quote(self.config.namespace)}/{kind}" + (f"/{quote(name)}" if name else "")

    async def _list(self, group: str, kind: str, query: Mapping[str, str]) -> list[ForeignJson]:
        found = await self._call(f"list {kind}", "GET", self._path(group, kind), query)
        return list(found.get("items") or [])

    async def cronjob(self) -> ForeignJson:
        """Return the CronJob whose template is used."""
        name = self.config.cronjob
        return await self._call(f"read CronJob {name}", "GET", self._path("batch", "cronjobs", name))

    async def jobs(self, selector: str = "") -> list[ForeignJson]:
        """Return the Jobs of the namespace that match a label selector."""
        return await self._list("batch", "jobs", {"labelSelector": selector})

    async def job(self, name: str) -> ForeignJson | None:
        """Return one Job, or None when there is none of that name."""
        try:
            return await self._call(f"read Job {name}", "GET", self._path("batch", "jobs", name))
        except KubeCallError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def create_job(self, manifest: ForeignJson, *, dry_run: bool = False) -> ForeignJson:
        """Create a Job, once; no retry here, since the outcome of a failed call is unknown.

        A field that the server does not know is refused, not dropped. ``dry_run``: admission and quota answer as they
        would, and nothing is stored.
        """
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        what = f"create Job {manifest['metadata']['name']}"
        return await self._call(what, "POST", self._path("batch", "jobs"), query, manifest)

    async def adopt_job(self, name: str, me: Owner) -> ForeignJson | None:
        """Make ``me`` the owner of a Job and return it; None when it is gone.

        Raises:
            StaleError: a later try of the same task owns it.
        """
        async for attempt in self._retrying(lambda error: is_transient(error) or status_of(error) == CONFLICT):
            with attempt:
                job = await self.job(name)
                if job is None or owner_of(job) == me:
                    return job
                path = self._path("batch", "jobs", name)
                query = {"fieldManager": FIELD_MANAGER}
                return await self._call(f"adopt Job {name}", "PATCH", path, query, dict(adoption(job, me)), MERGE_PATCH)
        raise AssertionError("a retry either returns or raises")

    async def end_job(self, name: str, mine: Owner | None, uid: str = "") -> End | Leave:
        """Delete a Job and its pods if ``mine`` still owns it; says what was done. What passes is tried again.

        The caller must know that it may (its own deadline, or a person's decision about its try).
        """
        async for attempt in self._retrying(lambda error: is_transient(error) or status_of(error) == CONFLICT):
            with attempt:
                decided = may_end(await self.job(name), mine, uid)
                if isinstance(decided, End):
                    path = self._path("batch", "jobs", name)
                    try:
                        await self._call(f"delete Job {name}", "DELETE", path, None, dict(decided.options))
                    except KubeCallError as error:
                        if error.status != NOT_FOUND:
                            raise
                return decided
        raise AssertionError("a retry either returns or raises")

    def _retrying(self, again: Callable[[BaseException], bool]) -> AsyncRetrying:
        return AsyncRetrying(
            stop=stop_after_attempt(TRIES),
            wait=wait_fixed(TRY_PAUSE_SECONDS),
            retry=retry_if_exception(again),
            sleep=self._sleep,
            reraise=True,
        )

    async def pods(self, selector: str) -> list[ForeignJson]:
        """Return the pods of the namespace that match a label selector."""
        return await self._list("", "pods", {"labelSelector": selector})

    async def events(self, uid: str) -> list[ForeignJson]:
        """Return the events about one object."""
        return await self._list("", "events", {"fieldSelector": f"involvedObject.uid={uid}"})

    async def pod_log(self, pod: str, container: str) -> list[str]:
        """Return the last lines of a container."""
        what = f"read the log of pod {pod}, container {container}"
        query = {"container": container, "tailLines": LOG_TAIL_LINES, "limitBytes": LOG_LIMIT_BYTES}
        raw = await self._raw(what, "GET", f"{self._path('', 'pods', pod)}/log", query, {"Accept": "*/*"})
        return lines_of(raw, LOG_LIMIT_BYTES)

    async def allowed(self, verb: str, group: str, resource: str, subresource: str = "") -> bool:
        """Ask the API server whether this account may do something (SelfSubjectAccessReview).

        For CronJobs with the name of ours: to a question without a name, a Role that names it says no.
        """
        asked = {"namespace": self.config.namespace, "verb": verb, "group": group, "resource": resource}
        if resource == "cronjobs":
            asked["name"] = self.config.cronjob
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked | ({"subresource": subresource} if subresource else {})},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = await self._call("ask for its own rights", "POST", path, None, review)
        return bool((answer.get("status") or {}).get("allowed"))


def _status_object(reason: str, raw: bytes) -> tuple[str, str]:
    """Return reason and message of the API's Status object, or what stands in its place."""
    text = raw.decode("utf-8", "replace")
    try:
        body = json.loads(text)
        return str(body.get("reason") or reason), str(body.get("message") or reason)
    except (ValueError, AttributeError):
        return reason, " ".join((text or reason).split())[:300]
