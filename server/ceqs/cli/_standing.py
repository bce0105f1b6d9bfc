"""What `ceqs outbox status` does: it reads places, and the heads of the logs that are followed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ceqs.cli._contexts import load_contexts
from ceqs.cli._handlers import handlers_called
from ceqs.cli._logs import behind, head_of, lag_of, number_of
from ceqs.cli._output import Output, show
from ceqs.cli._settings import Settings
from ceqs.log import Head
from ceqs.projectors import HandlerStatus, read_status


async def show_standing(settings: Settings, names: Iterable[str], output: Output) -> None:
    """Say where the publishers and subscribers of a project stand, those of a name or all."""
    wanted = {str(handler) for handler in handlers_called(settings, names)}
    for name, context in load_contexts(settings).items():
        urls = {one: settings.models_url_of(name, one) for one in (*context.publishers, *context.subscribers)}
        found = await read_status(settings.models_url, context, urls)
        statuses = [one for one in found if one.kind != "projection" and f"{name}/{one.name}" in wanted]
        heads = {source: await head_of(settings, source) for source in {one.source for one in statuses}}
        for one in statuses:
            show(output, _text(name, one, heads[one.source]), _value(name, one, heads[one.source]))


def _text(context: str, one: HandlerStatus, head: Head | None) -> str:
    counts = {"unsent": one.unsent, "refused": one.refused, "timers": one.timers, "parked": one.parked}
    said = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    lag = behind(head, one, public=one.source != context)
    text = f"{context + '/' + one.name:<28} {one.position:>9,} {lag:>16}  {one.fed_by or 'nobody runs it'}"
    lines = [text, f"    {said}" if said else "", f"    {one.state}: {one.reason}" if one.reason else ""]
    if one.refused:
        lines.append(f"    see: ceqs outbox list {context}/{one.name}")
    if one.parked:
        lines.append(f"    see: ceqs parked list {context}/{one.name}")
    return "\n".join(filter(None, lines))


def _value(context: str, one: HandlerStatus, head: Head | None) -> dict[str, Any]:
    public = one.source != context
    return {
        "context": context,
        "handler": one.name,
        "kind": one.kind,
        "state": one.state,
        "reason": one.reason,
        "source": one.source,
        "position": one.position,
        "head": number_of(head, public=public) if head else None,
        "lag": lag_of(head, one, public=public),
        "log_id": one.log_id,
        "unsent": one.unsent,
        "refused": one.refused,
        "timers": one.timers,
        "parked": one.parked,
        "outcomes": dict(one.outcomes),
        "run_by": one.fed_by or None,
    }
