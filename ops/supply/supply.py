"""What rfmstream is made of: known holes in it, and a list of it all.

    python -m ops.supply.supply audit          the floors of pyproject.toml and the locked versions, by pip-audit
    python -m ops.supply.supply sbom FILE      CycloneDX of an environment of the wheel and what it needs

A floor is the lowest version that pyproject.toml lets in: who has that must not have a known hole. Without a database
of advisories that answers, as on a machine without a network, nothing is known, which is said, and is no failure.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
LOCK: Final = ROOT / "ops" / "supply" / "requirements.lock"

_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(?:>=|==)\s*([0-9.]*[0-9])(\.\*)?")
_PINNED: Final = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")


def floors() -> dict[str, str]:
    """Return the lowest version of each package that is needed at run time, extras for users included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["registry"], *extras["report"], *extras["suggest"]]
    found = {}
    for text in needed:
        match = _REQUIREMENT.match(text)
        if match is None:
            raise SystemExit(f"pyproject.toml: {text!r} has no floor")
        # Of 0.15.* the first one.
        found[match[1].lower()] = match[2] + (".0" if match[3] else "")
    return found


def locked() -> dict[str, str]:
    """Return the versions that the image installs."""
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    return dict(match.groups() for line in lines if (match := _PINNED.match(line)))  # type: ignore[misc]


def audit() -> int:
    """Print known holes; return the exit code."""
    code = 0
    for what, versions in (("floors", floors()), ("locked versions", locked())):
        found = _audited(versions)
        if found is None:
            print(f"{what}: not audited, as no database of advisories answers here")
            continue
        unknown = sorted(one["name"] for one in found if "skip_reason" in one)
        holes = [(one["name"], one["version"], hole) for one in found for hole in one.get("vulns", ())]
        for name, version, hole in holes:
            fixed = ", ".join(hole["fix_versions"]) or "none"
            print(f"{what}: {name} {version}: {hole['id']}; fixed in {fixed}")
        told = f", {len(unknown)} not known to the database: {', '.join(unknown)}" if unknown else ""
        print(f"{what}: {len(holes)} known holes in {len(found) - len(unknown)} packages{told}")
        code = code or int(bool(holes))
    return code


def _audited(versions: dict[str, str]) -> list[dict[str, Any]] | None:
    """Return what pip-audit says of each package; None: the database does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "versions.txt"
        file.write_text(
            "".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8"
        )
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--no-deps",
            "--disable-pip",
            "--progress-spinner",
            "off",
        ]
        done = subprocess.run(
            [*command, "--format", "json", "--timeout", "15", "--requirement", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        return None
    return None if all("skip_reason" in one for one in found) else found


def sbom(out: Path) -> None:
    """Write the list of what is there once the wheel is installed from the locked versions."""
    wheels = sorted((ROOT / "dist").glob("rfmstream-*.whl"))
    if not wheels:
        raise SystemExit("there is no wheel in dist: make wheel")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "--requirement", str(LOCK)], check=True)
        subprocess.run([*pip, "--no-deps", str(wheels[-1])], check=True)
        subprocess.run(
            [python, "-m", "pip", "uninstall", "--quiet", "--yes", "pip", "setuptools"], check=True
        )
        tool = [
            sys.executable,
            "-m",
            "cyclonedx_py",
            "environment",
            "--output-reproducible",
            "--mc-type",
            "application",
        ]
        subprocess.run(
            [*tool, "--pyproject", str(ROOT / "pyproject.toml"), "--output-file", str(out), python],
            check=True,
        )
    print(f"{len(json.loads(out.read_text(encoding='utf-8'))['components'])} components: {out}")


def main(arguments: list[str]) -> int:
    """Do what the command line says."""
    match arguments:
        case ["audit"]:
            return audit()
        case ["sbom", out]:
            sbom(Path(out))
            return 0
        case _:
            print(__doc__, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
