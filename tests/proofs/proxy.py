"""Stands between the service and PostgreSQL, and loses the answer to a COMMIT when it is told to.

A process of its own: `python -m tests.proofs.proxy SOCKET`. It prints its port; then each line on its standard input is
a command: `drop` swallows the answer to the next write that was committed, and hangs up; `reset` hangs up on everybody.
It prints the command when it is done. https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import asyncio
import re
import struct
import sys
from collections.abc import AsyncIterator

WRITE = re.compile(rb"\s*(WITH|INSERT|UPDATE|DELETE|COMMIT)\b", re.IGNORECASE)
CHUNK = 1 << 16


class Proxy:
    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path
        self.armed = 0
        self.sessions: set[Session] = set()

    async def serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=512)
        say(str(server.sockets[0].getsockname()[1]))
        commands = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        while command := await commands.readline():
            if command == b"drop\n":
                self.armed += 1
            elif command == b"reset\n":
                for session in list(self.sessions):
                    session.hang_up()
                say("reset")

    def swallows(self) -> bool:
        """Whether the next answer to a committed write is to be lost; asked once for each."""
        if not self.armed:
            return False
        self.armed -= 1
        say("drop")
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_unix_connection(self.socket_path)
        except OSError:
            writer.close()
            return
        session = Session(self, (reader, writer), upstream)
        self.sessions.add(session)
        await session.run()
        self.sessions.discard(session)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Session:
    """One connection of the service. `wrote`: whether its transaction, as far as it has come, writes."""

    def __init__(self, proxy: Proxy, service: Streams, postgres: Streams) -> None:
        self.proxy, self.service, self.postgres = proxy, service, postgres
        self.statements: dict[bytes, bool] = {}  # those that are prepared, by name: whether they write
        self.wrote = False

    async def run(self) -> None:
        ways = [asyncio.create_task(way) for way in (self._forward(), self._back())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        self.hang_up()
        await asyncio.gather(*ways, return_exceptions=True)  # who hung up first does not matter

    def hang_up(self) -> None:
        for _, writer in (self.service, self.postgres):
            writer.transport.abort()

    async def _forward(self) -> None:
        reader, writer = self.service[0], self.postgres[1]
        async for kind, message in messages(reader, startup=True):
            self._note(kind, message[5:])
            writer.write(message)
            await writer.drain()

    async def _back(self) -> None:
        reader, writer, held = self.postgres[0], self.service[1], []
        async for kind, message in messages(reader):
            held.append(message)
            if self.wrote and kind != b"Z":
                continue  # to the end of the answer: whether it is to be lost shows only there
            if kind == b"Z" and message[5:] == b"I":  # ReadyForQuery, outside of a transaction: it is committed
                if self.wrote and self.proxy.swallows():
                    return
                self.wrote = False
            writer.write(b"".join(held))
            held.clear()
            await writer.drain()

    def _note(self, kind: bytes, body: bytes) -> None:
        if kind == b"Q":
            self.wrote |= bool(WRITE.match(body))
        elif kind == b"P":
            name, sql, _ = body.split(b"\0", 2)
            self.statements[name] = bool(WRITE.match(sql))
        elif kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            self.wrote |= self.statements.get(name, False)


async def messages(reader: asyncio.StreamReader, startup: bool = False) -> AsyncIterator[tuple[bytes, bytes]]:
    """Whole messages, until the other side hangs up. The first of a client has no type."""
    try:
        if startup:
            length = await reader.readexactly(4)
            yield b"", length + await reader.readexactly(struct.unpack("!i", length)[0] - 4)
        while True:
            head = await reader.readexactly(5)
            yield head[:1], head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
    except (asyncio.IncompleteReadError, OSError):
        return


def say(word: str) -> None:
    print(word, flush=True)


if __name__ == "__main__":
    asyncio.run(Proxy(sys.argv[1]).serve())
