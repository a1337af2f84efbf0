"""What SHOW GRANTS says about a right, for servers that cannot be asked; and how the others are asked."""

from __future__ import annotations

import pytest

from include.scorecard_backfill.sql.rights import Right, check_grant_statement, granted

DELETE = Right("ALTER DELETE", "acme_voice", "score")


@pytest.mark.parametrize(
    ("lines", "right", "said"),
    [
        (["GRANT ALL ON *.* TO admin WITH GRANT OPTION"], DELETE, "yes"),
        (["GRANT SELECT, ALTER DELETE ON *.* TO admin"], DELETE, "yes"),
        (["GRANT ALTER TABLE ON acme_voice.* TO admin"], DELETE, "yes"),
        (["GRANT ALTER DELETE ON `acme_voice`.`score` TO admin"], DELETE, "yes"),
        (["GRANT ALTER UPDATE ON *.* TO admin"], DELETE, "no"),
        (["GRANT ALTER DELETE ON other.* TO admin"], DELETE, "no"),
        (["GRANT ALTER DELETE ON acme_voice.scorecard TO admin"], DELETE, "no"),
        (["GRANT ALTER DELETE ON *.* TO admin", "REVOKE ALTER DELETE ON acme_voice.* FROM admin"], DELETE, "no"),
        (["GRANT ALTER DELETE ON *.* TO admin", "REVOKE ALTER DELETE ON other.* FROM admin"], DELETE, "yes"),
        (["GRANT cleaner TO admin"], DELETE, "unknown"),
        (["GRANT SELECT ON *.* TO admin", "GRANT cleaner TO admin"], DELETE, "unknown"),
        (["GRANT cleaner TO admin"], Right("CLUSTER"), "unknown"),
        (["GRANT ALTER DELETE ON *.* TO admin"], Right("CLUSTER"), "no"),
        (["GRANT SELECT(a, b) ON system.mutations TO admin"], Right("SELECT", "system", "mutations"), "no"),
        ([], DELETE, "no"),
    ],
)
def test_what_the_lines_say(lines: list[str], right: Right, said: str) -> None:
    assert granted(lines, right) == said


def test_a_right_is_asked_for_with_its_names_quoted() -> None:
    assert check_grant_statement(Right("CLUSTER")) == "CHECK GRANT CLUSTER ON *.*"
    assert check_grant_statement(Right("SELECT", "a`b")) == "CHECK GRANT SELECT ON `a\\`b`.*"
    assert check_grant_statement(DELETE) == "CHECK GRANT ALTER DELETE ON `acme_voice`.`score`"
