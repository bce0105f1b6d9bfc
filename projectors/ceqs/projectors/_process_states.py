"""The states of a process manager: read and written in the transaction of its checkpoint."""

from __future__ import annotations

import sqlalchemy as sa
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncSession

from ceqs.contract import StateType
from ceqs.model import initial
from ceqs.projectors._tables import STATES

_SEEN = "ceqs_process_states"


async def load_state(session: AsyncSession, kind: StateType, key: str) -> Message:
    """Give a copy of the state under a key: as it was before its first event where there is none."""
    seen: dict[str, Message] = session.info.setdefault(_SEEN, {})
    if key not in seen:
        wanted = sa.select(STATES.c.state).where(STATES.c.key == key)
        stored = (await (await session.connection()).execute(wanted)).scalar_one_or_none()
        seen[key] = kind.message.FromString(stored) if stored is not None else fresh_state(kind, key)
    copy = kind.message()
    copy.CopyFrom(seen[key])
    return copy


async def save_state(session: AsyncSession, kind: StateType, key: str, state: Message) -> None:
    """Keep a state that has changed; one that is as it was in the beginning takes no room."""
    seen: dict[str, Message] = session.info[_SEEN]
    if state == seen[key]:
        return
    connection = await session.connection()
    here = STATES.c.key == key
    if state in (fresh_state(kind, key), kind.message()):
        await connection.execute(sa.delete(STATES).where(here))
        state = fresh_state(kind, key)
    else:
        stored = state.SerializeToString()
        if not (await connection.execute(sa.update(STATES).where(here).values(state=stored))).rowcount:
            await connection.execute(sa.insert(STATES).values(key=key, state=stored))
    seen[key] = state


def fresh_state(kind: StateType, key: str) -> Message:
    """Give the state before its first event."""
    return initial(kind, {kind.boundary[0]: key})
