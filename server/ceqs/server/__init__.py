"""The gRPC host: commands, queries, events, health and reflection.

A command's way, file by file: `_handlers` (the rpc) -> `_commands` (queues it, has its batch read, decided, appended,
and answers) -> `_intake` (bytes to a checked request, by `_decode`, and `_calls`: its metadata) -> `_decider` (on the
state as those before it leave it) -> `_refusals` (what goes wrong, as a status).
"""

from ceqs.server._calls import CommandCall
from ceqs.server._commands import CommandExecutor, Executed
from ceqs.server._decode import Decoder
from ceqs.server._forgetting import forget_lapsed
from ceqs.server._roles import EVERY_ROLE, Role
from ceqs.server._served import Served
from ceqs.server._server import Server
from ceqs.server._settings import ServerSettings, reserved

__all__ = [
    "EVERY_ROLE",
    "CommandCall",
    "CommandExecutor",
    "Decoder",
    "Executed",
    "Role",
    "Served",
    "Server",
    "ServerSettings",
    "forget_lapsed",
    "reserved",
]
