"""The front's end of the line to rank 0; the other end is `measure_front.Gate`, which describes what is said on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

from .measure_front import FILE

#: Requests that may be under way; the rest is refused, for what waits in the front is seen by no one.
MOST_UNDER_WAY = 256
#: Rank 0 says four times a second that it is at work; after this long without it nobody waits any more.
SILENT_S = 5.0
LOOK_S = 0.05
ANSWER = ("id", "outcome", "server", "response_s")


class UnavailableError(Exception):
    """No rank will answer: the run has not begun, is held, or is over."""


class Link:
    """Hands requests to rank 0, comes back when it is lost, and gives up on what was under way then.

    Args:
        work: Where rank 0 says how to reach it.
        silent_s: How long it may be silent before every request is answered by UnavailableError.
    """

    def __init__(self, work: Path, silent_s: float = SILENT_S) -> None:
        self._told, self._silent_s = work / FILE, silent_s
        self._writer: asyncio.StreamWriter | None = None
        self._under_way: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_key = 0
        self._heard_s = -silent_s

    @property
    def ready(self) -> bool:
        """Whether rank 0 is at work."""
        return self._writer is not None and time.monotonic() - self._heard_s < self._silent_s

    @property
    def under_way(self) -> int:
        """Requests that wait for an answer."""
        return len(self._under_way)

    async def ask(self, arrived_s: float, size: float) -> dict[str, Any]:
        """Hand over a request and return rank 0's answer: id, outcome, server, response_s.

        Args:
            arrived_s: When it came in, monotonic.
            size: How many times the usual work.

        Raises:
            UnavailableError: Nobody answers, or too many wait already.
        """
        if not self.ready:
            raise UnavailableError("no rank answers: the run has not begun, is paused or is over; try again")
        if len(self._under_way) >= MOST_UNDER_WAY:
            raise UnavailableError(f"{MOST_UNDER_WAY} requests are under way, more the front does not hold; try again")
        assert self._writer is not None
        self._last_key += 1
        key = self._last_key
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._under_way[key] = answer
        self._writer.write(json.dumps([key, arrived_s, size]).encode() + b"\n")
        try:
            return await answer
        finally:
            self._under_way.pop(key, None)

    async def keep(self) -> None:
        """Stay connected, for as long as the front is there."""
        while True:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                await self._once()
            await asyncio.sleep(LOOK_S)

    async def _once(self) -> None:
        path = json.loads(self._told.read_text())["socket"]
        reader, writer = await asyncio.open_unix_connection(path)
        self._writer, self._heard_s = writer, -self._silent_s
        try:
            while line := await self._line(reader):
                self._heard_s = time.monotonic()
                self._settle(json.loads(line))
        finally:
            self._writer = None
            writer.close()
            for answer in self._under_way.values():
                if not answer.done():
                    answer.set_exception(
                        UnavailableError("the ranks do not answer any more: the run is paused or over; try again")
                    )

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        """Return the next line, or nothing: to hang up tells rank 0, when it is back, that what was under way is void."""
        while True:
            try:
                async with asyncio.timeout(self._silent_s):
                    return await reader.readline()
            except TimeoutError:
                if self._under_way:
                    return b""

    def _settle(self, message: list[Any]) -> None:
        if not message:
            return
        key, *values = message
        answer = self._under_way.get(key)
        if answer is not None and not answer.done():
            answer.set_result(dict(zip(ANSWER, values, strict=True)))
