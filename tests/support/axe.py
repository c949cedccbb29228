"""What axe-core says of a page in a browser."""

from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from playwright.sync_api import Page

PACKAGE: Final = "axe_playwright_python"


def assert_nothing_serious(page: "Page") -> None:
    """Check a page as it stands; PACKAGE has to be there."""
    page.evaluate(files(PACKAGE).joinpath("axe.min.js").read_text("utf-8"))
    result: dict[str, Any] = page.evaluate("axe.run()")
    bad = [
        (violation["id"], violation["impact"], violation["nodes"][0]["html"][:200], len(violation["nodes"]))
        for violation in result["violations"]
        if violation["impact"] in {"serious", "critical"}
    ]
    assert bad == []
    assert len(result["passes"]) > 15
