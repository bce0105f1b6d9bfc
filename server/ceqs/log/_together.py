"""Walking along the events that carry several tags at once, by the rarest of them.

Each step looks where every other tag comes next and goes there: of two tags that are met together once, one of which
half of the log carries, it takes two steps. (Leapfrog join; Veldhuizen 2014, https://arxiv.org/abs/1210.0481.)
"""

from __future__ import annotations


def together(
    *, generation: str, lead: str, others: str, start: str, stop: str, further: str, backwards: bool = False
) -> str:
    """Give the SQL of `walk(position)`: positions of `lead` in their order, among them all that have all the tags.

    The arguments are expressions. `others` is a table with a column `value`, of at least one tag. The walk begins
    beyond `start` and ends with the first position beyond `stop`, or with NULL where a tag is not met any more.
    `further` is the function that gives the further of two positions.
    """
    beyond, order, far = ("<", "DESC", "min") if backwards else (">", "ASC", "max")
    step = "- 1" if backwards else "+ 1"
    first = f"ORDER BY t.position {order} LIMIT 1"
    leads = f"SELECT t.position FROM tags AS t WHERE t.generation = {generation} AND t.tag = {lead}"  # noqa: S608  # ours
    return f"""
walk(position) AS (
    SELECT ({leads} AND t.position {beyond} {start} {first})
    UNION ALL
    SELECT ({leads} AND t.position {beyond}= (
        SELECT CASE WHEN count(n.position) = count(*) THEN {further}({far}(n.position), w.position {step}) END FROM (
            SELECT (
                SELECT u.position FROM tags AS u
                WHERE u.generation = {generation} AND u.tag = o.value AND u.position {beyond}= w.position
                ORDER BY u.position {order} LIMIT 1) AS position
            FROM {others} AS o) AS n) {first})
    FROM walk AS w WHERE w.position IS NOT NULL AND NOT w.position {beyond} {stop})
"""  # noqa: S608  # expressions of ours


def carries_all(*, generation: str, others: str, position: str) -> str:
    """Give the SQL of whether the event at a position carries all the other tags as well."""
    # A subquery that gives a value is asked for each; of EXISTS, PostgreSQL makes a table of all tags that there are.
    return f"""
NOT EXISTS (
    SELECT 1 FROM {others} AS o WHERE (
        SELECT u.position FROM tags AS u
        WHERE u.generation = {generation} AND u.tag = o.value AND u.position = {position}) IS NULL)
"""  # noqa: S608  # as above
