"""The package that is imported as `include.scorecard_backfill`, from the project root, as in Astro projects."""
