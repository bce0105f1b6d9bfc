"""Channels to a service."""

from __future__ import annotations

import grpc
import grpc.aio

OPTIONS = (
    # The client retries by itself, under one command id and one timeout; two retry policies would multiply.
    ("grpc.enable_retries", 0),
    # A service that restarts is back within a second; the default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # An idle stream notices a dead peer. Servers of ceqs allow a ping every 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


def open_channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Open a channel to `host:port`; plain text where there are no credentials."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=OPTIONS)
