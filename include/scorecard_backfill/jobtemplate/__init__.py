"""A CronJob's jobTemplate, field by field: what of it a window's Job keeps, what is set, what is refused."""

from include.scorecard_backfill.jobtemplate.admitted import remarks, undone
from include.scorecard_backfill.jobtemplate.fields import FIELDS, TemplateField
from include.scorecard_backfill.jobtemplate.rules import changes, containers_of, problems, program_container

__all__ = ["FIELDS", "TemplateField", "changes", "containers_of", "problems", "program_container", "remarks", "undone"]
