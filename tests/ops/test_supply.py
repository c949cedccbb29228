"""The locked versions are those that pyproject.toml asks for, by digest and from nowhere in particular."""

import json
import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ops.supply import supply

TEXT = supply.LOCK.read_text(encoding="utf-8")
NEEDED = [
    Requirement(text)
    for text in tomllib.loads((supply.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "dependencies"
    ]
]


@pytest.mark.parametrize("requirement", NEEDED, ids=str)
def test_what_is_needed_is_locked_at_a_version_that_will_do(requirement: Requirement) -> None:
    version = supply.locked()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)
    # A floor is what somebody has who installs the least.
    assert requirement.specifier.contains(supply.floors()[requirement.name.lower()])


def test_each_package_has_digests_and_no_address() -> None:
    entries = re.split(r"^(?=[a-z0-9])", TEXT, flags=re.MULTILINE)[1:]
    assert len(entries) == len(supply.locked()) > 25
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in TEXT
    assert "--index-url" not in TEXT


@pytest.mark.parametrize(
    ("dependencies", "code", "words"),
    [
        ([{"name": "aiohttp", "version": "1", "skip_reason": "not found"}], 0, "not audited"),
        ([{"name": "aiohttp", "version": "1", "vulns": []}], 0, "0 known holes in 1 packages"),
        (
            [{"name": "aiohttp", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}],
            1,
            "aiohttp 1: CVE-1; fixed in 2",
        ),
    ],
)
def test_what_the_database_says_decides(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dependencies: list[dict[str, object]],
    code: int,
    words: str,
) -> None:
    answer = subprocess.CompletedProcess([], code, json.dumps({"dependencies": dependencies}), "")
    monkeypatch.setattr(supply.subprocess, "run", lambda *_, **__: answer)
    assert supply.main(["audit"]) == code
    assert words in capsys.readouterr().out
