"""How to mend what a check of the connections has found: from the problem's sentence to what a person does. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

State = Literal["works", "look", "broken"]
"""works; look: it works, but a person should know; broken: a run would stop there."""

ORDER: tuple[State, ...] = ("broken", "look", "works")


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table. `system`: clickhouse, kubernetes, temporal or file."""

    cluster: str
    system: str
    state: State
    text: str
    remedy: str = ""


# The first that matches. Sentences are those of the hooks and checks; server codes are stable, words may not be.
_REMEDIES: tuple[tuple[str, str], ...] = (
    (r"is not defined in Airflow", "Create the connection (docs/deploy/connections.md)."),
    (r"native protocol", "Set the connection's port to the HTTP(S) one, 8443 with TLS."),
    (r"\b516\b|Authentication failed|password that was read", "Correct user and password of the connection."),
    (r"port[-_]forward", "Correct port_forward, or bind deploy/kubernetes/role-port-forward.yaml."),
    (r"Secret ", "Correct password_secret, or bind deploy/kubernetes/role-secret.yaml."),
    (r"knows no cluster", "Correct clickhouse.cluster in the cluster's file: names are in system.clusters."),
    (r"does not answer|hosts? .*answer", "Start the host that is named, or correct its name in remote_servers."),
    (r"may not \w+ [\w/]+ in namespace", "Bind the Role (deploy/kubernetes/role.yaml) to this identity."),
    (
        r"\b497\b|has no ALTER DELETE|lacks the right|may not|not granted",
        "Grant the right that is named to the connection's user.",
    ),
    (r"read-only on", "Repair the replica: its session with Keeper is lost (SYSTEM RESTORE REPLICA)."),
    (r"fixes settings", "Let the user change these settings, or give its profile these values."),
    (r"names no cluster; set one of", "Put kube_config, kube_config_path or in_cluster into the connection's extra."),
    (r"context .*(not exist|no context|Expected (key|object)|not found)|Invalid kube-config",
     "Correct kubernetes.context in the cluster's file, or the connection's kubeconfig."),
    (r"read CronJob.*\b404\b", "Correct kubernetes.namespace and kubernetes.cronjob in the cluster's file."),
    (r"\b403\b", "Bind the Role (deploy/kubernetes/role.yaml) to this identity."),
    (r"\b401\b|credentials of this connection", "Renew the credentials of the connection."),
    (r"does not take the Job|CronJob .*template|container", "Correct the CronJob's field that is named."),
    (r"namespace .*(not found|NOT_FOUND)|Namespace .* is not found|NOT_FOUND",
     "Correct temporal.namespace in the cluster's file."),
    (r"codec", "Correct codec_endpoint and codec_auth in the connection's extra, or start the codec."),
    (r"does not accept this connection|PERMISSION_DENIED|UNAUTHENTICATED", "Renew the API key or the certificate."),
    (r"clock", "Set the clocks: NTP on the hosts that differ."),
    (r"cannot be reached|no answer|onnection refused|onnect|Name or service not known|resolve",
     "Correct host, port and TLS of the connection; look whether the network lets it through."),
)  # fmt: skip


def remedy_of(problem: str) -> str:
    """What a person does about a problem; the sentence itself says what, where no rule is known.

    >>> remedy_of("kubernetes: this account may not create jobs in namespace cresta-cron (context c): ask for the role")
    'Bind the Role (deploy/kubernetes/role.yaml) to this identity.'
    """
    return next((remedy for words, remedy in _REMEDIES if re.search(words, problem)), "See the text.")


def skew_line(cluster: str, system: str, ahead_seconds: float, tolerance_seconds: float) -> Line:
    """The line about a clock that is `ahead_seconds` ahead of this machine's (negative: behind)."""
    way = "ahead of" if ahead_seconds >= 0 else "behind"
    text = f"clock {abs(ahead_seconds):.1f} s {way} this machine's"
    if abs(ahead_seconds) <= tolerance_seconds:
        return Line(cluster, system, "works", text)
    text += f", more than {tolerance_seconds:g} s: rows and workflows could be taken for older or newer than they are"
    return Line(cluster, system, "broken", text, remedy_of(text))


def markdown(lines: list[Line]) -> str:
    """The table, what is broken first."""
    rows = sorted(lines, key=lambda line: (ORDER.index(line.state), line.cluster, line.system))
    body = [f"| {one.state} | {one.cluster} | {one.system} | {_cell(one.text)} | {_cell(one.remedy)} |" for one in rows]
    return "\n".join(["| | cluster | system | what | what to do |", "|---|---|---|---|---|", *body])


def _cell(text: str) -> str:
    r"""Text of one cell.

    >>> _cell("a|b\nc")
    'a/b c'
    """
    return " ".join(text.replace("|", "/").split())
