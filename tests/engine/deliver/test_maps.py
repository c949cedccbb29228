"""Delivery maps: every shipped one makes requests, and what it says of answers holds."""

from pathlib import Path

import orjson
import pytest
from deliver_events import change

from rfmstream.engine.deliver.delivery_map import (
    DeliveryMap,
    list_delivery_maps,
    map_path,
    map_settings,
    read_delivery_map,
)
from rfmstream.engine.deliver.filters import Filter
from rfmstream.engine.deliver.forms import UnfitError
from rfmstream.engine.deliver.http_form import HttpForm
from rfmstream.engine.deliver.model import (
    Answer,
    Delivered,
    Event,
    Item,
    Refused,
    Request,
    RowError,
    TryAgain,
)
from rfmstream.engine.deliver.template import compile_value, dumps
from rfmstream.engine.deliver.trial import trial_event
from rfmstream.schemas.errors import ConfigError

VALUES = {
    "url": "https://example.com",
    "endpoint": "https://example.com",
    "webhook_url": "https://hooks.example.com/services/T0/B0/x",
    "server": "us6",
    "shop": "teashop",
    "list_id": "a1b2",
}


def shipped(name: str) -> DeliveryMap:
    settings = map_settings(map_path(name))[1]
    given = {one.name: VALUES.get(one.name, "sesame") for one in settings if one.default is None}
    return read_delivery_map(map_path(name), given)


def items_of(form: HttpForm, events: list[Event]) -> list[Item]:
    items = []
    for event in events:
        parts = form.parts(event)
        items.append(Item(event, event.customer_id, parts, sum(map(len, parts))))
    return items


def request_of(name: str, *events: Event) -> Request:
    form = HttpForm(shipped(name), {})
    return form.request(items_of(form, list(events)), 0)


def answered(name: str, answer: object, *, rows: int = 3, status: int = 200) -> object:
    form = HttpForm(shipped(name), {})
    items = items_of(form, [change(f"c{number}", 1) for number in range(rows)])
    return form.verdict(items, Answer(status, orjson.dumps(answer)))


@pytest.mark.parametrize("name", list_delivery_maps())
def test_every_shipped_map_names_its_source_and_makes_a_request(name: str) -> None:
    by = shipped(name)
    assert "https://" in by.source
    form = HttpForm(by, {})
    events = [change("c1", 1), *([trial_event("signal")] if "signal" in by.takes else [])]
    for event in events:
        assert Filter(events=by.takes).refusal(event) is None
        request = form.request(items_of(form, [event]), 0)
        orjson.loads(request.body)
        assert request.url.startswith("https://")
        assert b"{" not in request.body.replace(b"{", b"", request.body.count(b"}"))
        assert "{" not in request.url + "".join(request.headers.values())
    if by.batch > 1:
        many = [change(f"c{number}", 1) for number in range(by.batch)]
        assert len(form.request(items_of(form, many), 0).body) <= by.batch_bytes + 1000


def test_klaviyo_events_have_an_id_and_history_is_a_backfill() -> None:
    request = request_of("klaviyo-events", change("c1", 1, mode="replay"))
    assert request.headers["authorization"] == "Klaviyo-API-Key sesame"
    assert request.headers["revision"] == "2026-10-15"
    attributes = orjson.loads(request.body)["data"]["attributes"]
    assert attributes["backfill"] is True
    assert attributes["value"] == 1234.5
    assert attributes["value_currency"] == "EUR"
    assert attributes["unique_id"].startswith("rfm_")
    assert attributes["profile"]["data"]["attributes"] == {"external_id": "c1"}
    live = orjson.loads(request_of("klaviyo-events", trial_event("signal")).body)["data"]["attributes"]
    assert live["backfill"] is False
    assert "value" not in live
    assert live["metric"]["data"]["attributes"]["name"] == "RFM Tier Warning"


def test_braze_takes_two_lists_and_names_rows_by_their_list() -> None:
    form = HttpForm(shipped("braze-track"), {})
    events = [trial_event("signal"), change("c1", 1), change("c2", 1)]
    items = items_of(form, events)
    body = orjson.loads(form.request(items, 0).body)
    assert [one["external_id"] for one in body["events"]] == ["rfmstream-trial", "c1", "c2"]
    assert [one["external_id"] for one in body["attributes"]] == ["c1", "c2"]
    said = {
        "message": "success",
        "errors": [
            {"type": "'name' is bad", "input_array": "attributes", "index": 1},
            {"type": "'time' is bad", "input_array": "events", "index": 0},
            {"type": "whatever", "input_array": "purchases", "index": 0},
        ],
    }
    assert form.verdict(items, Answer(201, orjson.dumps(said))) == Delivered(
        [RowError(2, "'name' is bad"), RowError(0, "'time' is bad")]
    )


def test_answers_that_are_no_success_are_none() -> None:
    throttled = {"errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}]}
    assert isinstance(answered("shopify-metafields", throttled), TryAgain)
    user_errors = {"data": {"metafieldsSet": {"userErrors": [{"message": "no such owner"}]}}}
    assert isinstance(answered("shopify-metafields", user_errors), Refused)
    fine = {"data": {"metafieldsSet": {"userErrors": []}}}
    assert answered("shopify-metafields", fine) == Delivered()
    assert answered(
        "mailchimp-members", {"errors": [{"email_address": "c1", "error": "bounced"}]}
    ) == Delivered([RowError(1, "bounced")])
    trace = {"errors": [{"message": "no", "context": {"objectWriteTraceId": ["c2"]}}]}
    assert answered("hubspot-contacts", trace, status=207) == Delivered([RowError(2, "no")])
    assert answered(
        "customerio-track", {"errors": [{"batch_index": 0, "message": "x"}]}, status=207
    ) == Delivered([RowError(0, "x")])
    form = HttpForm(shipped("shopify-metafields"), {})
    assert form.verdict(items_of(form, [change()]), Answer(200, b"not json")) == Delivered()


def test_a_customer_cannot_call_a_whole_slack_channel() -> None:
    text = orjson.loads(request_of("slack", change("<!channel> & co", 1)).body)["text"]
    assert text == "RFM Tier Changed: customer &lt;!channel&gt; &amp; co, tier 011, playbook wake"


def test_what_comes_from_an_event_is_escaped_in_a_url(tmp_path: Path) -> None:
    by = written(tmp_path, 'url = "https://example.com/{customer_id}/x?e={event_key}"')
    form = HttpForm(by, {})
    request = form.request(items_of(form, [change("a/../b?c=d&é", 1)]), 0)
    assert request.url.startswith("https://example.com/a%2F..%2Fb%3Fc%3Dd%26%C3%A9/x?e=rfm_")


def written(
    folder: Path, request: str, rows: str = '[[rows]]\nrow = { a = "{tier}" }', more: str = ""
) -> DeliveryMap:
    path = folder / "map.toml"
    path.write_text(f'title = "t"\nsource = "s"\n[request]\n{request}\n{rows}\n{more}', encoding="utf-8")
    return read_delivery_map(path, {})


@pytest.mark.parametrize(
    ("request_", "rows", "more", "words"),
    [
        ('url = "https://{customer_id}.example.com/"', None, "", "no host that is known beforehand"),
        ('url = "ftp://example.com/"', None, "", "no host that is known beforehand"),
        ('url = "https://a.example/"', '[[rows]]\nrow = "{teir}"', "", "did you mean {tier}?"),
        ('url = "https://a.example/"', '[[rows]]\nrow = "{tier|uper}"', "", "there is no filter 'uper'"),
        ('url = "https://a.example/"', '[[rows]]\nrow = "{ tier"', "", "has a lone brace"),
        (
            'url = "https://a.example/"',
            "[[rows]]\nrow = 1",
            "[pace]\nbatch = 5",
            "say where the rows of a batch",
        ),
        ('url = "https://a.example/"', "[[rows]]\nrow = 1", "[body]\nx = 1", "does not hold {rows} once"),
        ('url = "https://a.example/"', "[[rows]]\nrow = 1", '[pace]\nrate = ["5"]', "is no rate"),
        ('url = "https://a.example/"', "[[rows]]\nrow = 1", "[pase]\n", "did you mean pace?"),
    ],
)
def test_a_map_that_is_wrong_is_told_of_by_key_and_fix(
    tmp_path: Path, request_: str, rows: str | None, more: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, request_, *([rows] if rows else []), more=more)
    assert words in str(caught.value)
    assert "map.toml" in str(caught.value)


def test_settings_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"settings\.api_key: is missing; give it: a private API key"):
        read_delivery_map(map_path("klaviyo-events"), {})
    with pytest.raises(ConfigError, match="unknown setting"):
        read_delivery_map(map_path("klaviyo-events"), {"api_kee": "x"})
    with pytest.raises(ConfigError, match="no such delivery map"):
        map_path("klavio")


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{frequency}", 5),
        ("{next_tier}", None),
        ("{next_tier|or:none}", "none"),
        ("{tier}", "011"),
        ("a {tier} {next_tier}b", "a 011 b"),
        ("{{{tier}}}", "{011}"),
        ("{time|unix}", 1_795_824_000),
        ("{time|unix_ms}", 1_795_824_000_000),
        ("{time|date}", "2026-11-28"),
        ("{customer_id|upper}", "C1"),
        ("{customer_id|md5}", "a9f7e97965d6cf799a529102a973b8b9"),
        ("{is_replay}", False),
        (["{tier}", "{next_tier?}", 1], ["011", 1]),
        ({"a": "{next_tier?}", "b": {"c": "{frequency|text}"}}, {"b": {"c": "5"}}),
        ("", ""),
    ],
)
def test_placeholders_keep_their_types(template: object, value: object) -> None:
    compute = compile_value(template, {}, key="k", file="f")
    assert orjson.loads(dumps(compute(change()))) == value


def test_amounts_keep_their_digits() -> None:
    compute = compile_value({"m": "{monetary}", "t": "x{monetary}"}, {}, key="k", file="f")
    assert (
        dumps(compute(change(monetary_minor=10**17 + 1)))
        == b'{"m":1000000000000000.01,"t":"x1000000000000000.01"}'
    )
    assert dumps(compute(change(monetary_minor=-5, currency="JPY"))) == b'{"m":-5,"t":"x-5"}'
    assert dumps(compute(change(monetary_minor=-5, currency="BHD"))) == b'{"m":-0.005,"t":"x-0.005"}'


def test_an_event_that_no_row_takes_or_that_is_too_long_does_not_fit(tmp_path: Path) -> None:
    by = written(tmp_path, 'url = "https://a.example/"', '[[rows]]\ntakes = ["change"]\nrow = 1')
    with pytest.raises(UnfitError, match="no row for a signal"):
        HttpForm(by, {}).parts(trial_event("signal"))
    with pytest.raises(UnfitError, match="is larger than the 32000"):
        HttpForm(shipped("customerio-track"), {}).parts(change("c", 1, note="x" * 32_000))
