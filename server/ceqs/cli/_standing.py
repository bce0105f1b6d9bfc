"""What `ceqs outbox status` does: it reads places, and the heads of the logs that are followed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ceqs.cli._contexts import load_contexts
from ceqs.cli._handlers import handlers_called
from ceqs.cli._logs import behind, head_of, is_replaced, number_of
from ceqs.cli._output import Output, show
from ceqs.cli._settings import Settings
from ceqs.projectors import HandlerStatus, read_status


async def show_standing(settings: Settings, names: Iterable[str], output: Output) -> None:
    """Say where the publishers and subscribers of a project stand, those of a name or all."""
    wanted = {str(handler) for handler in handlers_called(settings, names)}
    for name, context in load_contexts(settings).items():
        urls = {one: settings.models_url_of(name, one) for one in (*context.publishers, *context.subscribers)}
        for status in await read_status(settings.models_url, context, urls):
            if status.kind == "projection" or f"{name}/{status.name}" not in wanted:
                continue
            head, public = await head_of(settings, status.source), status.source != name
            one = replace(status, head=None if head is None else number_of(head, public=public))
            replaced = is_replaced(head, status)
            show(output, _text(name, one, behind(head, one, public=public)), _value(name, one, replaced=replaced))


def _text(context: str, one: HandlerStatus, lag: str) -> str:
    counts = {"unsent": one.unsent, "refused": one.refused, "timers": one.timers, "parked": one.parked}
    said = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    text = f"{context + '/' + one.name:<28} {one.position:>9,} {lag:>16}  {one.fed_by or 'nobody runs it'}"
    lines = [text, f"    {said}" if said else "", f"    {one.state}: {one.reason}" if one.reason else ""]
    if one.refused:
        lines.append(f"    see: ceqs outbox list {context}/{one.name}")
    if one.parked:
        lines.append(f"    see: ceqs parked list {context}/{one.name}")
    return "\n".join(filter(None, lines))


def _value(context: str, one: HandlerStatus, *, replaced: bool) -> dict[str, Any]:
    return {
        "context": context,
        "handler": one.name,
        "kind": one.kind,
        "state": one.state,
        "reason": one.reason,
        "source": one.source,
        "position": one.position,
        "head": one.head,
        "lag": None if replaced else one.lag,
        "log_id": one.log_id,
        "unsent": one.unsent,
        "refused": one.refused,
        "timers": one.timers,
        "parked": one.parked,
        "outcomes": dict(one.outcomes),
        "run_by": one.fed_by or None,
    }
