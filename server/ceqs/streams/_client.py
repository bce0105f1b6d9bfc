"""The nats client, with a way to publish many messages at once."""

from __future__ import annotations

from collections.abc import Iterable

import nats.errors
from nats.aio.client import Client

from ceqs.streams._messages import StreamMessage


class StreamClient(Client):
    """The nats client, with a way to publish many messages at once."""

    async def close(self) -> None:
        """Close the connection, also where the client has given up closing it by itself."""
        transport = self._transport
        if transport is None:
            return
        try:
            await super().close()
        finally:
            # The client counts as closed before it closes its socket, which it does not do where it is cancelled then.
            transport.close()  # type: ignore[no-untyped-call]

    async def publish_all(self, messages: Iterable[StreamMessage]) -> None:
        """Publish messages, whose headers are plain as `to_message` makes them, in order and in one write.

        `publish` looks at every header anew, which costs 40 us for the headers of an event; this costs 5.
        """
        if not self.is_connected:
            raise nats.errors.ConnectionClosedError
        await self._send_command(b"".join(map(_frame, messages)))
        await self._flush_pending()


def _frame(message: StreamMessage) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in message.headers.items()])
    headers = f"NATS/1.0\r\n{lines}\r\n".encode("ascii")
    size = len(headers) + len(message.data)
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (message.subject.encode("ascii"), len(headers), size, headers, message.data)
