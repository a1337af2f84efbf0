"""The page's TypeScript names exactly the fields that the read model gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from include.scorecard_backfill.config.fields import Frozen
from include.scorecard_backfill.overview import history, missed, model

TYPES = (Path(__file__).resolve().parents[2] / "ui" / "src" / "types.ts").read_text()
INTERFACES = {
    name: re.findall(r"^  (\w+)\??:", body, re.MULTILINE)
    for name, body in re.findall(r"export interface (\w+) \{\n(.*?)\n\}", TYPES, re.DOTALL)
}
MODELS = [
    one
    for module in (model, history, missed)
    for one in vars(module).values()
    if isinstance(one, type) and issubclass(one, Frozen) and one is not Frozen and one.__module__ == module.__name__
]
OTHER_NAMES = {"Link": "WindowLink"}
"""``Link`` is the router's in TypeScript."""


@pytest.mark.parametrize("one", MODELS, ids=lambda one: one.__name__)
def test_an_interface_names_the_fields_of_its_model(one: type[Frozen]) -> None:
    assert INTERFACES[OTHER_NAMES.get(one.__name__, one.__name__)] == list(one.model_fields)


@pytest.mark.parametrize(("name", "words"), [("State", model.State), ("Stage", model.Stage)])
def test_words_are_the_same(name: str, words: object) -> None:
    line = re.search(rf"export type {name} = (.*);", TYPES)
    assert line is not None
    assert re.findall(r'"(\w+)"', line[1]) == re.findall(r"'(\w+)'", str(words))
