"""The service ``task_queue``: the store is opened, and its tasks are run until the server ends."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from mcpd_core import ServiceHost

from .announcing import Announcer
from .bridge import Bridge
from .dispatcher import Dispatcher
from .layout import database_in
from .queue import TaskQueue
from .records import Swept
from .settings import TaskQueueSettings
from .sqlite import SQLiteTaskStore
from .store import TaskStore


@asynccontextmanager
async def open_service(host: ServiceHost) -> AsyncIterator[TaskQueue]:
    """Open the store in the data directory, take over what a dead process left, and start working.

    :raises StoreUnusable: when the store cannot be opened.
    """
    settings = host.settings or TaskQueueSettings()
    store = await trio.to_thread.run_sync(
        partial(
            SQLiteTaskStore,
            database_in(host.data_dir),
            durability=settings.durability,
            retention=settings.retention,
            retention_of=settings.retention_of_states,
            log_lines=settings.log_lines,
            largest_arguments=settings.largest_arguments,
            largest_log=settings.largest_log,
            ageing=settings.ageing,
            largest_result=settings.largest_result,
            inline_result=settings.inline_result,
            limits=settings.limits(),
        )
    )
    bridge = Bridge(host.call_soon)
    try:
        async with serving(store, host, bridge, settings) as queue:
            yield queue
    finally:
        with trio.CancelScope(shield=True):
            await bridge.wait(store.close())


@asynccontextmanager
async def serving(
    store: TaskStore, host: ServiceHost, bridge: Bridge, settings: TaskQueueSettings
) -> AsyncIterator[TaskQueue]:
    """Run the tasks of an open store, whichever its engine is."""
    owner = f"{store.instance}:{secrets.token_hex(8)}"
    dispatcher = Dispatcher(store, host, bridge, settings, owner)
    queue = TaskQueue(store, bridge, dispatcher, settings, Announcer(host))
    found = await _recovered(store, bridge, owner)
    if found.readied or found.parked or found.buried or found.cancelled:
        host.log.warning(
            "Taken over from before: %d tasks are ready again, %d are uncertain, %d are dead, "
            "%d are cancelled.",
            found.readied,
            found.parked,
            found.buried,
            found.cancelled,
        )
    await queue.staff.take_over(host.log)
    store.listen(lambda changes: bridge.post(partial(queue.on_changes, changes)))
    forget = host.on_closing(queue.drain)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatcher.run)
            try:
                yield queue
            finally:
                with trio.CancelScope(shield=True):
                    await dispatcher.stop()
                nursery.cancel_scope.cancel()
    finally:
        forget()
        store.listen(None)


async def _recovered(store: TaskStore, bridge: Bridge, owner: str) -> Swept:
    """Take over all that was left, a part after the other; return what became of it."""
    found, more = Swept(), True
    while more:
        part = await bridge.wait(store.recover(owner))
        more = part.more
        found = Swept(
            readied=found.readied + part.readied,
            parked=found.parked + part.parked,
            buried=found.buried + part.buried,
            cancelled=found.cancelled + part.cancelled,
        )
    return found
