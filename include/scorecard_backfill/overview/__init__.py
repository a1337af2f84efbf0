"""The read model of a run: what page, report and command say about it, in one vocabulary."""

from include.scorecard_backfill.overview.look import overview
from include.scorecard_backfill.overview.model import Overview

__all__ = ["Overview", "overview"]
