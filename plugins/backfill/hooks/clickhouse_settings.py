"""Which settings a client sends with every question, so that no profile decides what an answer holds."""

from __future__ import annotations

from clickhouse_connect.driver.client import Client

from backfill.hooks.clickhouse_errors import PinnedSettingError
from include.scorecard_backfill.sql.pins import ALWAYS_KNOWN, SETTINGS_STATEMENT, pins


def pinned_settings(client: Client, conn_id: str) -> dict[str, str]:
    """Return the settings that make an answer whole.

    Raises:
        PinnedSettingError: a profile fixes one of them at another value, or hides which ones the server knows.
    """
    known = {name: (found.value, bool(found.readonly)) for name, found in client.server_settings.items()}
    if not set(known) >= ALWAYS_KNOWN:
        # What the driver reads when it connects is cut by the very settings that are to be fixed.
        rows = client.query(SETTINGS_STATEMENT).result_rows
        known = {name: (value, bool(fixed)) for name, value, fixed in rows[0][0]} if rows else {}
    if missing := sorted(ALWAYS_KNOWN - set(known)):
        raise PinnedSettingError(
            f"connection {conn_id}: system.settings is not shown whole ({', '.join(missing)} missing): the user's"
            " profile cuts answers. Give it the server's default profile, or one without limits on rows read"
        )
    send, problems = pins(known)
    if problems:
        raise PinnedSettingError(
            f"connection {conn_id}: the user's profile fixes settings that may cut or change an answer:"
            f" {'; '.join(problems)}. Let this user change them, or give them these values"
        )
    return send
