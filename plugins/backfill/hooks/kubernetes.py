"""Kubernetes Jobs of a cluster, for workers (sync) and triggers (async); objects as plain dicts in the API's JSON form.

The context is always named: a connection without it must never reach the cluster of somebody's current context.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import urllib3
from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook, KubernetesHook
from airflow.sdk import BaseHook
from kubernetes.client import BatchV1Api, CoreV1Api
from kubernetes.client.rest import ApiException
from kubernetes_asyncio import client as async_client
from kubernetes_asyncio.client.rest import ApiException as AsyncApiException

from include.scorecard_backfill.config import ClusterConfig

Json = dict[str, Any]

REQUEST_TIMEOUT = (10, 30)
"""Connect and read limit of one call, in seconds; a socket that is never answered must not hang a stage."""

LOG_TAIL_LINES = 2_000
LOG_LIMIT_BYTES = 2_000_000
"""A reindex Job prints one line per workflow; two thousand lines are many times the profiles of one customer."""

NOT_FOUND = 404
CONFLICT = 409

DELETE_TRIES = 3
DELETE_PAUSE_SECONDS = 1.0
"""A Job whose task was ended has nobody who would delete it later; short enough for a worker that is being killed."""

SOURCES = ("in_cluster", "kube_config", "kube_config_path")
"""Fields of a Kubernetes connection's extra that say which cluster it reaches."""


class KubeConnectionError(ValueError):
    """A Kubernetes connection does not say which cluster it reaches."""


def checked_extra(conn_id: str, extra: Mapping[str, Any]) -> Json:
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
    return error.status if isinstance(error, (ApiException, AsyncApiException)) else None


def brief(error: BaseException) -> str:
    """Return an error in one line of at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def is_transient(error: BaseException) -> bool:
    """Return True for errors that pass by themselves: no answer, 401 (a token is being rotated), 429 and 5xx."""
    status = status_of(error)
    if status is not None:
        return status in (0, 401, 408, 429) or status >= 500
    return isinstance(
        error, (urllib3.exceptions.HTTPError, aiohttp.ClientError, TimeoutError, asyncio.TimeoutError, ConnectionError)
    )


class JobClient:
    """Blocking calls for workers."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config.kubernetes
        self.hook = KubernetesHook(conn_id=self.config.conn_id, cluster_context=self.config.context)
        checked_extra(self.config.conn_id, self.hook.conn_extras)

    @property
    def batch(self) -> BatchV1Api:
        """The batch/v1 client of the named context."""
        return self.hook.batch_v1_client

    @property
    def core(self) -> CoreV1Api:
        """The core/v1 client of the named context."""
        return self.hook.core_v1_client

    def as_dict(self, obj: object) -> Json:
        """Return a model object as the API's JSON."""
        result: Json = self.hook.api_client.sanitize_for_serialization(obj)
        return result

    def cronjob(self) -> Json:
        """Return the CronJob whose template is used."""
        return self.as_dict(
            self.batch.read_namespaced_cron_job(
                self.config.cronjob, self.config.namespace, _request_timeout=REQUEST_TIMEOUT
            )
        )

    def jobs(self, selector: str = "") -> list[Json]:
        """Return the Jobs of the namespace that match a label selector."""
        found = self.batch.list_namespaced_job(
            self.config.namespace, label_selector=selector, _request_timeout=REQUEST_TIMEOUT
        )
        return [self.as_dict(item) for item in found.items]

    def job(self, name: str) -> Json | None:
        """Return one Job, or None when there is none of that name."""
        try:
            found = self.batch.read_namespaced_job(name, self.config.namespace, _request_timeout=REQUEST_TIMEOUT)
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return self.as_dict(found)

    def create_job(self, manifest: Json) -> Json:
        """Create a Job, once; no retry here, since the outcome of a failed call is unknown."""
        return self.as_dict(
            self.batch.create_namespaced_job(self.config.namespace, manifest, _request_timeout=REQUEST_TIMEOUT)
        )

    def pods(self, selector: str) -> list[Json]:
        """Return the pods of the namespace that match a label selector."""
        found = self.core.list_namespaced_pod(
            self.config.namespace, label_selector=selector, _request_timeout=REQUEST_TIMEOUT
        )
        return [self.as_dict(item) for item in found.items]

    def delete_job(self, name: str) -> None:
        """Delete a Job and its pods; one that is gone already is fine. What passes is tried again, three times."""
        for left in reversed(range(DELETE_TRIES)):
            try:
                self.batch.delete_namespaced_job(
                    name, self.config.namespace, propagation_policy="Background", _request_timeout=REQUEST_TIMEOUT
                )
                return
            except Exception as error:
                # The clients' exceptions have no common base; all but a passing one are raised.
                if status_of(error) == NOT_FOUND:
                    return
                if not left or not is_transient(error):
                    raise
                time.sleep(DELETE_PAUSE_SECONDS)

    def allowed(self, verb: str, group: str, resource: str, subresource: str = "") -> bool:
        """Ask the API server whether this account may do something (SelfSubjectAccessReview)."""
        from kubernetes.client import AuthorizationV1Api

        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": {
                    "namespace": self.config.namespace,
                    "verb": verb,
                    "group": group,
                    "resource": resource,
                    **({"subresource": subresource} if subresource else {}),
                }
            },
        }
        answer = AuthorizationV1Api(self.hook.api_client).create_self_subject_access_review(
            review, _request_timeout=REQUEST_TIMEOUT
        )
        return bool(self.as_dict(answer).get("status", {}).get("allowed"))


class AsyncJobClient:
    """Async calls for triggers; every call is one look, and the client lives no longer than it."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config.kubernetes

    @asynccontextmanager
    async def _api(self) -> AsyncIterator[Any]:
        # A hook of its own for each look: a token that was rotated meanwhile is then read again.
        conn_id = self.config.conn_id
        extra = checked_extra(conn_id, (await BaseHook.aget_connection(conn_id)).extra_dejson)
        hook = AsyncKubernetesHook(conn_id=conn_id, cluster_context=self.config.context, connection_extras=extra)
        async with hook.get_conn() as api:
            yield api

    async def jobs(self, selector: str) -> list[Json]:
        """Return the Jobs of the namespace that match a label selector."""
        async with self._api() as api:
            found = await async_client.BatchV1Api(api).list_namespaced_job(
                self.config.namespace, label_selector=selector, _request_timeout=REQUEST_TIMEOUT
            )
            return [api.sanitize_for_serialization(item) for item in found.items]

    async def job(self, name: str) -> Json | None:
        """Return one Job, or None when there is none of that name."""
        async with self._api() as api:
            try:
                found = await async_client.BatchV1Api(api).read_namespaced_job(
                    name, self.config.namespace, _request_timeout=REQUEST_TIMEOUT
                )
            except AsyncApiException as error:
                if error.status == NOT_FOUND:
                    return None
                raise
            result: Json = api.sanitize_for_serialization(found)
            return result

    async def pods(self, selector: str) -> list[Json]:
        """Return the pods of the namespace that match a label selector."""
        async with self._api() as api:
            found = await async_client.CoreV1Api(api).list_namespaced_pod(
                self.config.namespace, label_selector=selector, _request_timeout=REQUEST_TIMEOUT
            )
            return [api.sanitize_for_serialization(item) for item in found.items]

    async def pod_log(self, pod: str, container: str) -> list[str]:
        """Return the last lines of a container."""
        async with self._api() as api:
            text = await async_client.CoreV1Api(api).read_namespaced_pod_log(
                pod,
                self.config.namespace,
                container=container,
                tail_lines=LOG_TAIL_LINES,
                limit_bytes=LOG_LIMIT_BYTES,
                _request_timeout=REQUEST_TIMEOUT,
            )
            return (text or "").splitlines()

    async def delete_job(self, name: str) -> None:
        """Delete a Job and its pods; one that is gone already is fine. What passes is tried again, three times."""
        for left in reversed(range(DELETE_TRIES)):
            try:
                async with self._api() as api:
                    await async_client.BatchV1Api(api).delete_namespaced_job(
                        name, self.config.namespace, propagation_policy="Background", _request_timeout=REQUEST_TIMEOUT
                    )
                return
            except Exception as error:
                # As above.
                if status_of(error) == NOT_FOUND:
                    return
                if not left or not is_transient(error):
                    raise
                await asyncio.sleep(DELETE_PAUSE_SECONDS)
