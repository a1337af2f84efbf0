"""From a channel of the cluster's file to one of Airflow's notifiers. Providers are imported only when one is named."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from airflow.sdk import BaseHook, BaseNotifier
from airflow.sdk.exceptions import AirflowNotFoundException

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.notify import Channel
from include.scorecard_backfill.notices import Notice

TIMEOUT_SECONDS = 5.0

SLACK = "https://hooks.slack.com/services"

SMTP_PACKAGE = "apache-airflow-providers-smtp"


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
        _post(self.conn_id, url, self.payload, headers=headers, auth=auth)


class SlackNotifier(BaseNotifier):
    """Sends a text to an incoming webhook of Slack: one POST, for which Airflow's provider and Slack's SDK do no more.

    The connection is the provider's: the password is the whole address, or what follows ``host`` in it.
    """

    def __init__(self, *, conn_id: str, text: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        # Slack reads &, < and > as markup; a customer id must not mention or link anything.
        self.payload = {"text": html.escape(text, quote=False)}

    def notify(self, context: Any) -> None:
        """Send it. Raises ChannelError when Slack does not take it."""
        _post(self.conn_id, slack_url(self.conn_id, BaseHook.get_connection(self.conn_id)), self.payload)


def _post(conn_id: str, url: str, payload: Mapping[str, Any], **options: Any) -> None:
    try:
        answer = httpx.post(url, json=payload, timeout=TIMEOUT_SECONDS, **options)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Its text may hold the address, which is a secret of many services.
        raise ChannelError(f"connection {conn_id!r}: {type(error).__name__}") from None
    if not answer.is_success:
        raise ChannelError(f"connection {conn_id!r}: HTTP {answer.status_code}")


def slack_url(conn_id: str, connection: Any) -> str:
    """Return the address of an incoming webhook. Raises ChannelError when the connection holds none."""
    token = str(connection.password or "").strip()
    host = str(connection.host or "").rstrip("/")
    if not token and not urlsplit(host).path.strip("/"):
        raise ChannelError(f"connection {conn_id!r}: its password is to be the webhook's address at Slack, or its end")
    base = host or SLACK
    if "://" not in base:
        base = f"{connection.schema or 'https'}://{base}"
    url = token if "://" in token else f"{base}/{token.lstrip('/')}".rstrip("/")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ChannelError(f"connection {conn_id!r}: it holds no http(s) address")
    return url


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
    made: Any
    if channel.kind == "slack":
        made = SlackNotifier(conn_id=channel.conn_id, text=f"{notice.subject}\n{notice.text}")
    elif channel.kind == "smtp":
        body = f"<pre>{html.escape(notice.text)}</pre>"
        subject = " ".join(notice.subject.split())
        made = _smtp_notifier()(to=list(channel.to), subject=subject, html_content=body, smtp_conn_id=channel.conn_id)
    else:
        made = WebhookNotifier(conn_id=channel.conn_id, payload=notice.to_json())
    notifier: BaseNotifier = made
    return notifier


def _smtp_notifier() -> Any:
    try:
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier
    except ImportError:
        raise ChannelError(f"kind smtp needs {SMTP_PACKAGE}, which is not installed; install it, or use another"
                           " kind") from None  # fmt: skip
    return SmtpNotifier


def channel_problems(config: ClusterConfig) -> list[str]:
    """Return a sentence for each channel that cannot work: provider or connection are missing. Nothing is sent."""
    found = []
    for number, channel in enumerate(config.notify.channels):
        at = f"notify: channels[{number}]"
        try:
            if channel.kind == "smtp":
                _smtp_notifier()
            connection = BaseHook.get_connection(channel.conn_id)
            if channel.kind == "webhook":
                webhook_url(channel.conn_id, connection)
            elif channel.kind == "slack":
                slack_url(channel.conn_id, connection)
        except ChannelError as error:
            found.append(f"{at}: {error}")
        except AirflowNotFoundException:
            found.append(f"{at}: connection {channel.conn_id!r} is not defined in Airflow; create it")
    return found
