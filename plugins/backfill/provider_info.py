"""What Airflow asks a provider package for.

Found through the installed package's entry point, or through plugins/scorecard_backfill-*.dist-info where the folders
are mounted. Airflow stops if its name is not that of the distribution, so both have the same (docs/adr/0021).
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": ["string", "null"]}
SECRET = TEXT | {"format": "password"}

TEMPORAL_FIELDS: dict[str, dict[str, Any]] = {
    "namespace": {"label": "Namespace", "schema": TEXT, "description": "The cluster's file names it, too."},
    "tls": {
        "label": "TLS",
        "schema": {"type": ["boolean", "null"]},
        "description": "Empty: TLS when there is an API key or a certificate.",
    },
    "server_root_ca_cert": {"label": "CA of the server (PEM)", "schema": TEXT},
    "client_cert": {"label": "Client certificate (PEM)", "schema": TEXT},
    "client_private_key": {"label": "Key of the client certificate (PEM)", "schema": SECRET},
    "domain": {
        "label": "Server name",
        "schema": TEXT,
        "description": "Name in the server's certificate when it is not the host's.",
    },
    "port_forward": {
        "label": "Port-forward",
        "schema": TEXT,
        "description": "namespace/service:port, reached through the Kubernetes API; host and port are not used then.",
    },
    "kubernetes_conn_id": {
        "label": "Kubernetes connection of the port-forward",
        "schema": TEXT,
        "description": "Empty: kubernetes_<cluster>.",
    },
    "kubernetes_context": {"label": "Kube context of the port-forward", "schema": TEXT},
    "codec_endpoint": {
        "label": "Codec endpoint",
        "schema": TEXT,
        "description": "Address of a remote codec, when the workers encrypt their payloads.",
    },
    "codec_auth": {
        "label": "Authorization of the codec",
        "schema": SECRET,
        "description": "Value of the Authorization header, or api_key to send the API key as bearer token.",
    },
}
"""Fields of the form; they are kept in the connection's extra."""


def provider_info() -> dict[str, Any]:
    """Return the connection type that this package adds, in the form of Airflow's provider info schema."""
    return {
        "package-name": "scorecard-backfill",
        "name": "Scorecard backfill",
        "description": "Connection type of Temporal, used by the scorecard backfill DAGs.",
        "connection-types": [
            {
                "hook-class-name": "backfill.hooks.temporal.TemporalHook",
                "hook-name": "Temporal",
                "connection-type": "temporal",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login"],
                    "relabeling": {"password": "API key"},
                    "placeholders": {"host": "temporal-frontend-headless", "port": "7233"},
                },
                "conn-fields": TEMPORAL_FIELDS,
            },
        ],
    }
