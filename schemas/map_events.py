"""The sections [[event]] of an input map: which columns make an order event."""

from collections.abc import Mapping
from typing import Any, Final, cast, get_args

from rfmstream.schemas.map_keys import DECIMAL_SIGNS, Keys
from rfmstream.schemas.map_times import TIME_KEYS, languages, time_formats, zones_of_words
from rfmstream.schemas.map_values import Values
from rfmstream.schemas.mapping import EACH, Event, Expression, Rounding
from rfmstream.schemas.orders import ORDER_TYPES
from rfmstream.schemas.zones import zone_of

_ROUNDINGS: Final[tuple[str, ...]] = get_args(Rounding)
_FIELDS: Final = ("customer_id", "order_id", "occurred_at", "amount", "amount_minor", "currency", "event_id")


class Events:
    """Reads events."""

    def __init__(self, keys: Keys, values: Values) -> None:
        self._keys, self._values = keys, values

    def event(self, section: object, key: str) -> Event:
        """Return an event; `key` names its section."""
        table = self._keys.table(section, key)
        self._keys.known(table, key, ("when", "type", *_FIELDS, "amount_once"))
        kind = table.get("type", "paid")
        for name in ("customer_id", "order_id", "occurred_at"):
            if name not in table and (name, kind) != ("order_id", "erased"):
                raise self._keys.error(f"{key}.{name}", "is missing", "name the column it comes from")
        if isinstance(kind, str):
            self._keys.choice(kind, f"{key}.type", ORDER_TYPES)
        time = self._keys.table_or_column(table["occurred_at"], f"{key}.occurred_at")
        zone, zone_of_row = self._zone(time, f"{key}.occurred_at")
        amount, in_minor, rounding = self._amount(table, key, needed=kind not in ("cancelled", "erased"))
        event = Event(
            when=self._values.conditions({"when": table["when"]}, key, ()) if "when" in table else None,
            type=kind if isinstance(kind, str) else self._values.expression(kind, f"{key}.type"),
            customer_id=self._values.expression(table["customer_id"], f"{key}.customer_id"),
            order_id=self._values.expression(table["order_id"], f"{key}.order_id")
            if "order_id" in table
            else Expression("constant"),
            occurred_at=self._values.expression(time, f"{key}.occurred_at", TIME_KEYS),
            time_formats=time_formats(self._keys, time, f"{key}.occurred_at"),
            time_zone=zone or None,
            amount=amount,
            in_minor=in_minor,
            rounding=rounding,
            currency=self._values.expression(table["currency"], f"{key}.currency")
            if "currency" in table
            else None,
            event_id=self._values.expression(table["event_id"], f"{key}.event_id")
            if "event_id" in table
            else None,
            zone_of_row=zone_of_row,
            zones=zones_of_words(self._keys, time, f"{key}.occurred_at"),
            languages=languages(self._keys, time, f"{key}.occurred_at"),
            amount_once=self._values.expression(table["amount_once"], f"{key}.amount_once")
            if "amount_once" in table
            else None,
        )
        self._check_each(event, key)
        return event

    def _check_each(self, event: Event, key: str) -> None:
        """Refuse an event that goes through two lists which do not lie inside each other."""
        each = event.each
        for name in event.columns():
            *lists, _ = name.split(EACH)
            through = EACH.join([*lists, ""])
            if not each.startswith(through):
                raise self._keys.error(
                    key,
                    f"goes through {each} and through {through}",
                    "write an [[event]] section for each of the lists",
                )

    def _zone(self, time: Mapping[str, Any], key: str) -> tuple[str, Expression | None]:
        """Return the zone of all times, or what says the zone of each."""
        if isinstance(time.get("time_zone"), dict):
            return "", self._values.expression(time["time_zone"], f"{key}.time_zone")
        zone = self._keys.get(time, "time_zone", key, str, "")
        if "time_zone" in time:
            zone_of(zone, file=self._keys.path, key=f"{key}.time_zone")
        return zone, None

    def _amount(
        self, table: Mapping[str, Any], key: str, *, needed: bool
    ) -> tuple[Expression | None, bool, Rounding]:
        given = [name for name in ("amount", "amount_minor") if name in table]
        if len(given) != 1:
            if not given and not needed:
                return None, False, "refuse"
            problem = "amount and amount_minor are both there" if given else "is missing"
            raise self._keys.error(
                f"{key}.amount", problem, "give amount (major units) or amount_minor (minor units)"
            )
        name = given[0]
        inner = self._keys.table_or_column(table[name], f"{key}.{name}")
        rounding = self._keys.get(inner, "rounding", f"{key}.{name}", str, "refuse")
        self._keys.choice(rounding, f"{key}.{name}.rounding", _ROUNDINGS)
        expression = self._values.expression(inner, f"{key}.{name}", ("rounding",))
        if name == "amount_minor" and set(DECIMAL_SIGNS) <= set(expression.remove):
            raise self._keys.error(
                f"{key}.amount_minor.remove",
                "takes the decimal sign away: 12,5 would count as 1.25, and 7 as 0.07",
                'give amount with decimal = "," and thousands = "."',
            )
        return expression, name == "amount_minor", cast("Rounding", rounding)
