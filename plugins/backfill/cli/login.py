"""Address and login: options and environment; a password or a token never stands in the command line."""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from backfill.cli.errors import usage

URL_ENV = "AIRFLOW_API_URL"
USER_ENV = "AIRFLOW_API_USER"
PASSWORD_ENV = "AIRFLOW_API_PASSWORD"
TOKEN_ENV = "AIRFLOW_API_TOKEN"
CLUSTER_ENV = "SCORECARD_BACKFILL_CLUSTER"


@dataclass(frozen=True, slots=True)
class Login:
    """Where Airflow is and who asks: a token, or user and password; secrets are never shown."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


def login_of(options: Namespace, env: Mapping[str, str], ask: Callable[[str], str] | None = None) -> Login:
    """Return address and login. A password that is missing is asked for, in a terminal (``ask``: for tests).

    Raises:
        CommandError: address or login are missing or cannot be used.
    """
    url = (options.url or env.get(URL_ENV) or "").rstrip("/")
    parts = urlsplit(url)
    if not url:
        raise usage(f"No address of Airflow: give --url, or set {URL_ENV} (such as https://airflow.example.com).")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise usage(f"{url.rsplit('@', 1)[-1]!r} is not an http(s) address; give --url https://airflow.example.com.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise usage(f"The address holds more than host and path; give a login by {USER_ENV} and {PASSWORD_ENV}.")
    if options.token_file:
        return Login(url, token=_token(Path(options.token_file)))
    user = options.user or env.get(USER_ENV) or ""
    # A user on the command line is meant; a token that lies in the environment must not take their place.
    if (token := env.get(TOKEN_ENV, "").strip()) and not options.user:
        return Login(url, token=token)
    if not user:
        raise usage(f"No login: set {TOKEN_ENV}, give --token-file, or --user with {PASSWORD_ENV}.")
    password = env.get(PASSWORD_ENV) or _ask(user, ask)
    return Login(url, user, password)


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"--token-file {path} cannot be read: {type(error).__name__}.") from None
    if not token or any(c.isspace() for c in token):
        raise usage(f"--token-file {path} holds no token: one line with nothing else is expected.")
    return token


def _ask(user: str, ask: Callable[[str], str] | None) -> str:
    if ask is None and not sys.stdin.isatty():
        raise usage(f"No password of {user}: set {PASSWORD_ENV} (it is asked for in a terminal only).")
    return (ask or getpass.getpass)(f"Password of {user}: ")
