"""Tell people something once in a run. Nothing here raises, and nothing waits for the other side for long.

What was told is kept in the state of the cluster's asset, one value for the newest run (max_active_runs 1). Two windows
that fail in the same second in different processes may both tell it; none is told twice by one process.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from airflow.sdk.configuration import conf
from asgiref.sync import sync_to_async

from backfill.kit.debts import asset_state
from backfill.kit.saying import say
from backfill.notify.channels import ChannelError, notifier_of
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.notify import Channel
from include.scorecard_backfill.notices import Notice, Run, addressed

TOLD = "told"
"""Key of the asset's state: the newest run and what was told in it."""

GRACE_SECONDS = 5.0
"""How long a worker waits for its messages; what takes longer goes on beside the task as long as that lives."""

REMEMBERED = 1_000

log = logging.getLogger(__name__)

_claimed: OrderedDict[tuple[str, str, str], None] = OrderedDict()
_lock = threading.Lock()
_sending: set[asyncio.Task[None]] = set()


def run_of(ti: Any, cluster: str) -> Run:
    """Return what notices say of a task's run, with the address of its page."""
    base = str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
    path = f"dags/{quote(ti.dag_id, safe='')}/runs/{quote(ti.run_id, safe='')}/plugin/backfill"
    return Run(cluster, ti.run_id, f"{base}/{path}" if base else "")


def tell(config: ClusterConfig, notice: Notice | None) -> None:
    """Send a notice from a worker, if it was not told in this run."""
    if notice is None or not config.notify.channels:
        return
    try:
        store = asset_state(config.name)
        kept: Any = store.get(TOLD)
        channels = _mine(config, notice, kept)
        if not channels:
            return
        store.set(TOLD, _with(kept, notice))
        threads = [threading.Thread(target=_send_and_log, args=(channel, notice), daemon=True) for channel in channels]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GRACE_SECONDS / len(threads))
        if slow := sum(thread.is_alive() for thread in threads):
            log.warning("%s messages about %r are still being sent; the task goes on", slow, notice.key)
    except Exception as error:
        log.warning("nobody could be told %r: %s", notice.key, _brief(error))


def tell_later(config: ClusterConfig, notice: Notice | None) -> None:
    """Send a notice from a trigger, beside it: the trigger does not wait."""
    if notice is None or not config.notify.channels:
        return
    task = asyncio.get_running_loop().create_task(_tell(config, notice))
    _sending.add(task)
    task.add_done_callback(_sending.discard)


async def all_sent() -> None:
    """Wait for what triggers of this process are sending; for tests."""
    await asyncio.gather(*_sending)


async def _tell(config: ClusterConfig, notice: Notice) -> None:
    try:
        store = asset_state(config.name)
        kept: Any = await store.aget(TOLD)
        channels = _mine(config, notice, kept)
        if not channels:
            return
        await store.aset(TOLD, _with(kept, notice))
        # Not in the one thread that serves everybody's reads of Airflow: a slow mail server would hold them up.
        send = sync_to_async(_send, thread_sensitive=False)
        for level, line in await asyncio.gather(*(send(channel, notice) for channel in channels)):
            await say(getattr(log, level), "%s", line)
    except Exception as error:
        await say(log.warning, "nobody could be told %r: %s", notice.key, _brief(error))


def _mine(config: ClusterConfig, notice: Notice, kept: Any) -> list[Channel]:
    """Return the channels that this process is to send to: none when this was told, or is being told."""
    channels = addressed(config.notify.channels, notice, _keys(kept, notice))
    if not channels:
        return []
    claim = (config.name, notice.run.run_id, notice.key)
    with _lock:
        if claim in _claimed:
            return []
        _claimed[claim] = None
        while len(_claimed) > REMEMBERED:
            _claimed.popitem(last=False)
    return channels


def forget() -> None:
    """Forget what this process has told; for tests."""
    _claimed.clear()


def _keys(kept: Any, notice: Notice) -> list[str]:
    if isinstance(kept, Mapping) and kept.get("run") == notice.run.run_id:
        return [str(key) for key in kept.get("keys") or ()]
    return []


def _with(kept: Any, notice: Notice) -> dict[str, Any]:
    return {"run": notice.run.run_id, "keys": [*_keys(kept, notice), notice.key]}


def _send(channel: Channel, notice: Notice) -> tuple[str, str]:
    """Send a notice; return what is to be logged of it and at which level. Never raises."""
    try:
        notifier_of(channel, notice).notify({})
        return "info", f"told over connection {channel.conn_id}: {notice.subject}"
    except Exception as error:
        said = f"connection {channel.conn_id} has not taken the message {notice.key!r}: {_brief(error)}"
        return "warning", said


def _send_and_log(channel: Channel, notice: Notice) -> None:
    level, line = _send(channel, notice)
    getattr(log, level)("%s", line)


def _brief(error: Exception) -> str:
    """Return what may be logged of an error: texts of other libraries may hold addresses and passwords."""
    return str(error) if isinstance(error, ChannelError) else type(error).__name__
