"""Slow clients, in a process of their own so that they take no time of the good ones.

    python -m tools.soak.slow PORT COUNT

Each sends a request for a token, one byte per second, and starts again when it is disconnected.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress

from tools.support.processes import mint_bytes


async def drip(port: int) -> None:
    """Send, byte by byte, on one connection after another."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(1)
            continue
        for byte in mint_bytes():
            writer.write(bytes([byte]))
            with suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(reader.read(), 1)
            if reader.at_eof() or writer.is_closing():
                break
        writer.close()


async def main(port: int, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(drip(port))
            await asyncio.sleep(random.uniform(0, 2 / count))  # noqa: S311 - so that they do not act as one


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
