"""From the identity that a change or a snapshot carries back to the ruleset."""

import re
from typing import Final

from rfmstream.schemas.ruleset import Ruleset, list_rulesets, load_ruleset

_IDENTITY: Final = re.compile(r"(?P<name>[^@\[]+)(\[(?P<overrides>[^\]]*)\])?")


def ruleset_of(identity: str) -> Ruleset | None:
    """Return the built-in ruleset an identity stands for, overrides included; None for a user's own."""
    match = _IDENTITY.fullmatch(identity)
    if match is None or match["name"] not in list_rulesets():
        return None
    overrides = dict(item.partition("=")[::2] for item in (match["overrides"] or "").split(",") if item)
    if overrides.keys() - {"time_zone", "currency"}:
        return None
    return load_ruleset(match["name"], **overrides)
