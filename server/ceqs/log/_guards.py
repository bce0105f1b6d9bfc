"""Triggers that keep a log's record as it was written, whoever writes to the database."""

from __future__ import annotations

from ceqs.log._retention import NOW_POSTGRES, NOW_SQLITE, PROMISED


def _refuse(trigger: str, when: str, says: str) -> str:
    return f"CREATE TRIGGER {trigger} BEFORE {when} BEGIN SELECT RAISE(ABORT, '{says}'); END"


# INSERT OR REPLACE deletes rows without firing their DELETE triggers, so SQLite's INSERTs are guarded too: an event
# takes the next position and, if it is public, the next public one.
SQLITE = (
    _refuse("events_update", "UPDATE ON events", "events are immutable"),
    _refuse("events_delete", "DELETE ON events", "events are immutable"),
    _refuse(
        "events_insert",
        """INSERT ON events WHEN NEW.position <> (SELECT coalesce(max(position), 0) + 1 FROM events)
        OR NEW.public_position <> (
            SELECT coalesce(max(public_position), 0) + 1 FROM events WHERE public_position IS NOT NULL)""",
        "an event takes the next position",
    ),
    _refuse("commands_update", "UPDATE ON commands", "receipts are immutable"),
    _refuse("commands_delete", "DELETE ON commands WHEN OLD.derived", "derived command ids are kept for good"),
    _refuse(
        "commands_forget",
        f"DELETE ON commands WHEN {PROMISED.format(row='OLD', now=NOW_SQLITE)}",
        "commands are remembered as long as was promised",
    ),
    _refuse("promises_update", "UPDATE ON promises", "promises are kept"),
    _refuse("promises_delete", "DELETE ON promises", "promises are kept"),
    _refuse(
        "promises_insert",
        "INSERT ON promises WHEN NEW.since <= (SELECT max(since) FROM promises)",
        "promises are kept",
    ),
    _refuse(
        "commands_insert",
        "INSERT ON commands WHEN EXISTS (SELECT 1 FROM commands WHERE command_id = NEW.command_id)",
        "receipts are immutable",
    ),
    _refuse("meta_delete", "DELETE ON meta", "a log keeps its name"),
    _refuse("meta_insert", "INSERT ON meta WHEN EXISTS (SELECT 1 FROM meta)", "a log keeps its name"),
    _refuse(
        "meta_update",
        """UPDATE ON meta WHEN NEW.name <> OLD.name OR NEW.epoch < OLD.epoch
        OR NEW.schema_version < OLD.schema_version OR NEW.tag_generation < OLD.tag_generation
        OR NEW.tagging < OLD.tagging""",
        "a log keeps its name and only goes forward",
    ),
)

_RAISE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation'; END $$
"""

# The condition of a trigger must not look into tables here, but its function may.
_REFUSE_PROMISED = f"""
CREATE FUNCTION refuse_promised() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
$$ BEGIN
    IF {PROMISED.format(row="OLD", now=NOW_POSTGRES)} THEN
        RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN OLD;
END $$
"""


def _refuse_always(table: str, trigger: str, when: str, says: str, by: str = "refuse") -> tuple[str, str]:
    # ALWAYS: session_replication_role = replica switches ordinary triggers off.
    return (
        f"CREATE TRIGGER {trigger} BEFORE {when} EXECUTE FUNCTION {by}('{says}')",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}",
    )


POSTGRES = (
    _RAISE,
    _REFUSE_PROMISED,
    *_refuse_always(
        "events",
        "events_change",
        "UPDATE OR DELETE OR TRUNCATE ON events FOR EACH STATEMENT",
        "events are immutable",
    ),
    *_refuse_always(
        "commands",
        "commands_change",
        "UPDATE OR TRUNCATE ON commands FOR EACH STATEMENT",
        "receipts are immutable",
    ),
    *_refuse_always(
        "commands",
        "commands_delete",
        "DELETE ON commands FOR EACH ROW WHEN (OLD.derived)",
        "derived command ids are kept for good",
    ),
    *_refuse_always(
        "commands",
        "commands_forget",
        "DELETE ON commands FOR EACH ROW",
        "commands are remembered as long as was promised",
        "refuse_promised",
    ),
    *_refuse_always(
        "promises",
        "promises_change",
        "UPDATE OR DELETE OR TRUNCATE ON promises FOR EACH STATEMENT",
        "promises are kept",
    ),
    *_refuse_always(
        "meta",
        "meta_delete",
        "DELETE OR TRUNCATE ON meta FOR EACH STATEMENT",
        "a log keeps its name",
    ),
    *_refuse_always(
        "meta",
        "meta_update",
        """UPDATE ON meta FOR EACH ROW WHEN (NEW.name <> OLD.name OR NEW.epoch < OLD.epoch
        OR NEW.schema_version < OLD.schema_version OR NEW.tag_generation < OLD.tag_generation
        OR NEW.tagging < OLD.tagging)""",
        "a log keeps its name and only goes forward",
    ),
)
