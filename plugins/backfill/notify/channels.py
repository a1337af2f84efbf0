"""From a channel of the cluster's file to one of Airflow's notifiers. Providers are imported only when one is named."""

from __future__ import annotations

import html
from collections.abc import Mapping
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import httpx
from airflow.sdk import BaseHook, BaseNotifier
from airflow.sdk.exceptions import AirflowNotFoundException

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.notify import Channel
from include.scorecard_backfill.notices import Notice

TIMEOUT_SECONDS = 5.0

PACKAGES = {"slack": "apache-airflow-providers-slack", "smtp": "apache-airflow-providers-smtp"}
NOTIFIERS = {
    "slack": ("airflow.providers.slack.notifications.slack_webhook", "SlackWebhookNotifier"),
    "smtp": ("airflow.providers.smtp.notifications.smtp", "SmtpNotifier"),
}


class ChannelError(Exception):
    """A channel cannot be used, or has not taken a message. The text holds no address and no secret."""


class WebhookNotifier(BaseNotifier):
    """Sends JSON by HTTP POST to the address of a connection.

    ``host`` is the whole address, or a name with ``schema`` and ``port``; ``endpoint`` and ``headers`` of the extra are
    added. A password is sent as bearer token, with a login as basic authentication.
    """

    def __init__(self, *, conn_id: str, payload: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.payload = dict(payload)

    def notify(self, context: Any) -> None:
        """Send it. Raises ChannelError when the other side does not take it."""
        connection = BaseHook.get_connection(self.conn_id)
        extra = connection.extra_dejson
        headers = {str(k): str(v) for k, v in (extra.get("headers") or {}).items()}
        auth = None
        if connection.login:
            auth = httpx.BasicAuth(connection.login, connection.password or "")
        elif connection.password:
            headers.setdefault("Authorization", f"Bearer {connection.password}")
        url = webhook_url(self.conn_id, connection, str(extra.get("endpoint") or ""))
        try:
            answer = httpx.post(url, json=self.payload, headers=headers, auth=auth, timeout=TIMEOUT_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Its text may hold the address, which is a secret of many services.
            raise ChannelError(f"connection {self.conn_id!r}: {type(error).__name__}") from None
        if not answer.is_success:
            raise ChannelError(f"connection {self.conn_id!r}: HTTP {answer.status_code}")


def webhook_url(conn_id: str, connection: Any, endpoint: str = "") -> str:
    """Return the address of a connection. Raises ChannelError for one that is not an http(s) address."""
    host = str(connection.host or "")
    if "://" not in host:
        port = f":{connection.port}" if connection.port else ""
        host = f"{connection.schema or 'https'}://{host}{port}"
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ChannelError(f"connection {conn_id!r}: its host is not an http(s) address")
    return f"{host.rstrip('/')}/{endpoint.lstrip('/')}" if endpoint else host


def notifier_of(channel: Channel, notice: Notice) -> BaseNotifier:
    """Return the notifier that sends a notice. Raises ChannelError when its provider is not installed.

    Its ``notify`` is called directly: Airflow's call of a notifier would render the text as a template, and the text
    holds ids and reasons that come from elsewhere.
    """
    text = f"{notice.subject}\n{notice.text}"
    if channel.kind == "slack":
        # Slack reads &, < and > as markup; a customer id must not mention or link anything.
        made = _class(channel)(slack_webhook_conn_id=channel.conn_id, text=html.escape(text, quote=False))
    elif channel.kind == "smtp":
        body = f"<pre>{html.escape(notice.text)}</pre>"
        subject = " ".join(notice.subject.split())
        made = _class(channel)(to=list(channel.to), subject=subject, html_content=body, smtp_conn_id=channel.conn_id)
    else:
        made = WebhookNotifier(conn_id=channel.conn_id, payload=notice.to_json())
    notifier: BaseNotifier = made
    return notifier


def _class(channel: Channel) -> Any:
    module, name = NOTIFIERS[channel.kind]
    try:
        return getattr(import_module(module), name)
    except ImportError:
        package = PACKAGES[channel.kind]
        raise ChannelError(f"kind {channel.kind} needs {package}, which is not installed; install it, or use another"
                           " kind") from None  # fmt: skip


def channel_problems(config: ClusterConfig) -> list[str]:
    """Return a sentence for each channel that cannot work: provider or connection are missing. Nothing is sent."""
    found = []
    for number, channel in enumerate(config.notify.channels):
        at = f"notify: channels[{number}]"
        try:
            if channel.kind in PACKAGES:
                _class(channel)
            connection = BaseHook.get_connection(channel.conn_id)
            if channel.kind == "webhook":
                webhook_url(channel.conn_id, connection)
        except ChannelError as error:
            found.append(f"{at}: {error}")
        except AirflowNotFoundException:
            found.append(f"{at}: connection {channel.conn_id!r} is not defined in Airflow; create it")
    return found
