"""The least of HTTP/2 that sends unary gRPC calls, so that the load generator is not what saturates first.

A grpc.aio client costs about as much per call as the server that answers it. This one sends headers that HPACK has
indexed (6 bytes from the second call on), reads of an answer little more than the 9 bytes that begin each frame, and
waits in select(), whose timeouts are precise enough for a steady rate.

It is no general client: a connection calls one rpc, a request fits into one frame, and an answer is a success if it
has a message; what was refused comes without.

RFC 9113 (HTTP/2), RFC 7541 (HPACK), https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 0x4
DEFAULT_WINDOW, LARGEST_WINDOW = 2**16 - 1, 2**31 - 1
LARGEST_REQUEST = 2**14 - 5
"""What fits into one frame, with gRPC's prefix."""
SILENCE = 30.0
"""After how many seconds without an answer something is broken."""
_HEAD = struct.Struct(">HBBBI")
_NUMBER = struct.Struct(">I")
_POST_HTTP = b"\x83\x86"

Ended = Callable[[bool], None]
"""Hears whether a call succeeded."""
Heard = Callable[[bytes], None]
"""Hears a message of an answer."""


@dataclass(slots=True)
class _Call:
    ended: Ended
    heard: Heard | None
    answered: bool = False
    part: bytes = b""


class Wire:
    """A connection for the calls of one rpc. What `call` was given is sent by `flush`."""

    def __init__(self, address: str, path: str, metadata: Sequence[tuple[str, str]] = ()) -> None:
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        named = [("te", "trailers"), *metadata]
        headers = [_known(4, path), _known(1, address), _known(31, "application/grpc"), *(_new(*n) for n in named)]
        self._first = _POST_HTTP + b"".join(headers)
        # The newest entry of HPACK's dynamic table has the index 62.
        self._later = _POST_HTTP + bytes(0x80 | 61 + age for age in range(len(headers), 0, -1))
        self._calls: dict[int, _Call] = {}
        self._next = 1
        self._window = DEFAULT_WINDOW
        self._held: deque[tuple[int, bytes]] = deque()
        self._received = 0
        self._rest = b""
        self._out = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            _frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, LARGEST_WINDOW)),
            _frame(WINDOW_UPDATE, 0, 0, _NUMBER.pack(LARGEST_WINDOW - DEFAULT_WINDOW)),
        ]

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Let select() wait for it."""
        return self._socket.fileno()

    @property
    def calls(self) -> int:
        """How many calls have not ended."""
        return len(self._calls)

    def call(self, request: bytes, ended: Ended, heard: Heard | None = None) -> None:
        """Call the rpc. `heard` gets the messages of the answer, where anybody wants them."""
        if len(request) > LARGEST_REQUEST:
            raise ValueError(f"a request of {len(request)} bytes; at most {LARGEST_REQUEST} fit into a frame")
        stream = self._next
        self._next += 2
        self._calls[stream] = _Call(ended, heard)
        self._out.append(_frame(HEADERS, END_HEADERS, stream, self._first))
        self._first = self._later
        self._held.append((stream, b"\0" + _NUMBER.pack(len(request)) + request))

    def flush(self) -> None:
        """Send what the server's flow control lets through."""
        while self._held and len(self._held[0][1]) <= self._window:
            stream, body = self._held.popleft()
            self._window -= len(body)
            self._out.append(_frame(DATA, END_STREAM, stream, body))
        if self._out:
            self._socket.sendall(b"".join(self._out))
            self._out.clear()

    def receive(self) -> None:
        """Take what has arrived, tell those who wait for it, and send what they call for thereupon."""
        arrived = self._socket.recv(1 << 18)
        if not arrived:
            raise ConnectionError("the server has closed the connection")
        data, at = self._rest + arrived, 0
        while len(data) - at >= 9:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            end = at + 9 + (high << 8 | low)
            if end > len(data):
                break
            self._take(kind, flags, stream, data[at + 9 : end])
            at = end
        self._rest = data[at:]
        self.flush()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._received += len(payload)
            if payload:
                self._message(self._calls[stream], payload)
            if self._received > LARGEST_WINDOW // 2:
                self._out.append(_frame(WINDOW_UPDATE, 0, 0, _NUMBER.pack(self._received)))
                self._received = 0
        elif kind == HEADERS and flags & END_STREAM:
            call = self._calls.pop(stream)
            call.ended(call.answered)
        elif kind == RST_STREAM and stream in self._calls:
            self._calls.pop(stream).ended(False)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += _NUMBER.unpack(payload)[0]
        elif kind in {SETTINGS, PING} and not flags & ACK:
            self._out.append(_frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == GOAWAY:
            raise ConnectionError(f"the server has said goodbye: {payload[8:].decode(errors='replace')}")

    @staticmethod
    def _message(call: _Call, payload: bytes) -> None:
        call.answered = True
        if call.heard is None:
            return
        call.part += payload
        while len(call.part) >= 5 and len(call.part) - 5 >= (size := _NUMBER.unpack_from(call.part, 1)[0]):
            message, call.part = call.part[5 : 5 + size], call.part[5 + size :]
            call.heard(message)


def drive(wires: Sequence[Wire], ready: Callable[[], bool], until: float = float("inf")) -> None:
    """Send and receive until `ready`, or until that time of time.perf_counter().

    Raises TimeoutError where the servers say nothing for too long.
    """
    for wire in wires:
        wire.flush()
    while not ready():
        left = until - time.perf_counter()
        arrived, _, _ = select.select(wires, (), (), min(max(left, 0), SILENCE))
        for wire in arrived:
            wire.receive()
        if left <= 0:
            return
        if not arrived and left > SILENCE:
            raise TimeoutError(f"no answer for {SILENCE:.0f} seconds")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def _known(name: int, value: str) -> bytes:
    """Give a header whose name HPACK knows, to be indexed."""
    return bytes([0x40 | name]) + _text(value)


def _new(name: str, value: str) -> bytes:
    return b"\x40" + _text(name) + _text(value)


def _text(value: str) -> bytes:
    encoded = value.encode("ascii")
    if len(encoded) > 126:
        raise ValueError(f"a header of {len(encoded)} bytes; at most 126 are encoded here")
    return bytes([len(encoded)]) + encoded
