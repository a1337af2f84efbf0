"""The built page, from the plugin's own folder: no network is needed at run time."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

BUNDLE = Path(__file__).resolve().parent.parent / "ui" / "backfill.js"

router = APIRouter()


@router.get("/static/backfill.js")
def bundle() -> FileResponse:
    """Return the bundle; the browser asks each time whether it has changed, so that a new release is seen at once."""
    return FileResponse(BUNDLE, media_type="text/javascript", headers={"Cache-Control": "no-cache"})
