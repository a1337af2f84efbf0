"""docs/job-template.md, made from the table: ``python -m include.scorecard_backfill.jobtemplate.page``."""

from __future__ import annotations

from include.scorecard_backfill.jobtemplate.fields import FIELDS, LEVELS

HEAD = """\
# What of the CronJob's template a Job takes over

Made from `include/scorecard_backfill/jobtemplate/fields.py` by `python -m include.scorecard_backfill.jobtemplate.page`;
do not edit by hand.

A Job of a window runs one pod, once, with the window's own range and customer, whatever the template says; a template
that cannot promise that is refused in preflight, before anything is deleted, with the path of the field. Paths are
those below `spec.jobTemplate` of the CronJob. A field that is not listed here is refused, too.

- **kept**: goes into the Job as it is.
- **checked**: kept, but some values are refused.
- **set**: the Job has our value, or none; preflight says so when the template has another one.
- **refused**: a template that uses it cannot serve.
"""


def page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD]
    for level in LEVELS:
        rows: dict[tuple[str, str], list[str]] = {}
        for field in FIELDS:
            if field.level == level:
                rows.setdefault((field.treatment, field.why), []).append(f"`{field.name}`")
        lines = [f"| {', '.join(sorted(names))} | {how} | {why} |" for (how, why), names in rows.items()]
        parts.append("\n".join([f"## `{level}`\n", "| field | how | why |", "| --- | --- | --- |", *sorted(lines), ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
