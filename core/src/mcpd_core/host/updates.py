"""`Updates`: who follows which resource, and telling them that it has changed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from ..spec import Principal

#: Seconds between two rounds of telling. The first change is told of at once; whatever happens to
#: a resource until the next round is told of once.
INTERVAL = 0.1

#: Called on the loop when what is at a URI has changed. It must neither wait nor raise.
Tell = Callable[[], None]
#: Who may be told: kind and id of a principal.
_Key = tuple[str, str]


class Updates:
    """Passes changes of resources on to those who follow them.

    Followers come and go on the host's loop; changes are reported from any thread. A change that
    nobody follows costs a look into a dictionary.

    :param find: returns the usual spelling of a URI at which there is a resource that a principal
        may read, else ``None``; asked anew for each round, since plugins come and go.
    """

    def __init__(self, find: Callable[[Principal, str], str | None]) -> None:
        #: See ``find`` above.
        self.find = find
        # Looked into from other threads, which is why no entry is ever empty and nothing is
        # iterated over there.
        self._followers: dict[str, dict[_Key, dict[object, tuple[Principal, Tell]]]] = {}
        self._lock = threading.Lock()
        self._changed: dict[tuple[str, _Key | None], None] = {}
        #: Whether a round is to come, so that none need be asked for.
        self._armed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def followed(self) -> bool:
        """Whether anybody follows anything; may be asked on any thread."""
        return bool(self._followers)

    def follow(self, uri: str, principal: Principal, tell: Tell) -> Callable[[], None]:
        """Have somebody told of changes; on the host's loop.

        :param uri: as `find` returned it, or as it may come to be.
        :param principal: on whose behalf: changes that only another one may know of are not told.
        :returns: what ends it; it may be called again.
        """
        self._loop = asyncio.get_running_loop()
        key, token = (principal.kind, principal.id), object()
        self._followers.setdefault(uri, {}).setdefault(key, {})[token] = (principal, tell)

        def stop() -> None:
            audience = self._followers.get(uri, {})
            if audience.get(key, {}).pop(token, None) is None:
                return
            if not audience[key]:
                del audience[key]
            if not audience:
                del self._followers[uri]

        return stop

    def changed(self, uri: str, principal: Principal | None = None) -> None:
        """Report that what is at a URI has changed; from any thread, without waiting.

        :param uri: in its usual spelling.
        :param principal: for whom it has; ``None`` for everybody.
        """
        audience = self._followers.get(uri)
        if audience is None:
            return
        key = None if principal is None else (principal.kind, principal.id)
        if key is not None and key not in audience:
            return
        with self._lock:
            self._changed[uri, key] = None
            if self._armed:
                return
            self._armed = True
        assert self._loop is not None, "somebody follows it"
        try:
            self._loop.call_soon_threadsafe(self._round)
        except RuntimeError:
            # The loop has been closed since: nobody is left who could be told.
            return

    def close(self) -> None:
        """Tell nobody any more."""
        self._followers.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _round(self) -> None:
        self._timer = None
        with self._lock:
            changed, self._changed = self._changed, {}
            self._armed = bool(changed)
        if not changed:
            return
        for uri, only in changed:
            # Copied: who is told may stop following.
            for key, audience in list(self._followers.get(uri, {}).items()):
                if only not in (None, key):
                    continue
                for principal, tell in list(audience.values()):
                    if self.find(principal, uri) is not None:
                        tell()
        assert self._loop is not None
        self._timer = self._loop.call_later(INTERVAL, self._round)
