"""JSON orders as text: good ones, odd ones and damaged ones, for whoever reads them."""

from hypothesis import strategies as st

IDS = [
    '"c1"',
    '"ada"',
    '"00042"',
    "42",
    "12345678901234567890",
    '""',
    "null",
    '"\u4e2d\u6587"',
    '"\\u0041"',
    '"a\\"b"',
]
IDS += [
    "1.50",
    "-0",
    "01",
    "true",
    '"' + "x" * 256 + '"',
    '"' + "x" * 257 + '"',
    '"\\ud800"',
    '"tab\t"',
    "[]",
    "{}",
]
TYPES = [
    '"paid"',
    '"refunded"',
    '"cancelled"',
    '"adjusted"',
    '""',
    "null",
    '"Paid"',
    '"paid "',
    '"cancelleD"',
    "1",
]
TIMES = ['"2024-02-29T12:34:56Z"', '"2024-02-29T12:34:56.123456Z"', '"2024-02-29 12:34:56.1234567+08:00"']
TIMES += [
    '"2024-02-29"',
    '"2024-02-29T12:34"',
    '"2023-02-29T00:00:00Z"',
    '"2024-02-29T12:34:56"',
    '""',
    "null",
]
TIMES += [
    '"2024-02-29T24:00:00Z"',
    '"2024-02-29T12:34:56.789Z"',
    '"2024-02-29T12:34:56z"',
    '" 2024-02-29T12:34:56Z "',
]
TIMES += [
    '"0000-01-01T00:00:00Z"',
    '"9999-12-31T23:59:59.999999Z"',
    '"0001-01-01T00:00:00+01:00"',
    "1709210096",
]
TIMES += [
    '"2024-02-30T12:34:56Z"',
    '"2024-13-01T12:34:56Z"',
    '"2024-02-29T12:60:56Z"',
    '"2024-02-29T12:34:60.000Z"',
]
AMOUNTS = [
    "12.50",
    '"12.50"',
    "0",
    '"0.00"',
    "-1.5",
    "1e2",
    "1E-2",
    "1e999",
    "12.345",
    "12.3400",
    "0.30000000000000004",
]
AMOUNTS += [
    '""',
    "null",
    "true",
    '"x"',
    '" 7 "',
    "1e-400",
    "10000000000",
    "10000000000.01",
    "00",
    "1.",
    "-",
    "+1",
    ".5",
]
AMOUNTS += ["123456789012345678901234567890", "[1]", "NaN", "Infinity", '"\\u0031"', '"1,000"']
MINORS = ["1250", '"1250"', "null", '""', "12.5", "-3", "1000000000000", "1000000000001", "false", "1e3"]
CURRENCIES = ['"CNY"', '""', "null", '"USD"', '"JPY"', '"cny"', '"CNY "', "156", '"\u5143"']
OTHERS = [
    "1",
    '"x"',
    "null",
    "[1, 2]",
    '{"a": {"b": []}}',
    '"\u4e2d"',
    '"\\n"',
    "1e999",
    "tru",
    '"a',
    "[" * 101 + "]" * 101,
]

POOLS = {
    "customer_id": IDS,
    "order_id": IDS,
    "type": TYPES,
    "occurred_at": TIMES,
    "amount": AMOUNTS,
    "amount_minor": MINORS,
    "currency": CURRENCIES,
    "event_id": IDS,
    "note": OTHERS,
    "customer_id_": OTHERS,
    "amount_minus": OTHERS,
    "occurred_ab": OTHERS,
    "\u952e": OTHERS,
    "a\\u0062": OTHERS,
}
REQUIRED = ("customer_id", "order_id", "occurred_at", "amount")
BLANKS = ["", "", "", " ", "\n", "\t", "\r", "  \n", "\x0b", "\xa0"]

GOOD = (
    b'{"customer_id": "c1", "order_id": "o1", "type": "paid", "occurred_at": "2024-02-29T12:34:56Z", '
    b'"amount": 12.50, "currency": "CNY", "event_id": "e1"}'
)


@st.composite
def _members(draw: st.DrawFn) -> list[str]:
    """Members in some order; most values are usual ones, and sometimes a key comes twice."""
    optional = [name for name in POOLS if name not in REQUIRED]
    names = [name for name in REQUIRED if draw(st.integers(0, 19))]
    names += draw(st.lists(st.sampled_from(optional), max_size=4, unique=draw(st.integers(0, 9)) > 0))
    members = []
    for name in draw(st.permutations(names)):
        pool = POOLS[name]
        value = draw(st.sampled_from(pool if draw(st.integers(0, 5)) == 0 else pool[:3]))
        blank = draw(st.sampled_from(BLANKS)) if draw(st.booleans()) else ""
        members.append(f'{blank}"{name}"{blank}:{blank}{value}{blank}')
    return members


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """Draw an object that is an order or nearly one."""
    return ("{" + ",".join(draw(_members())) + "}").encode()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw such an object with up to three bytes replaced, removed, doubled or added, or cut off."""
    text = bytearray(draw(objects()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text) - 1))
        byte = draw(
            st.one_of(
                st.sampled_from(b'{}[]",:\\ \n0159.-+eEnt\x00\x1f\x7f\x80\xc3\xff'), st.integers(0, 255)
            )
        )
        match draw(st.integers(0, 4)):
            case 0:
                text[at] = byte
            case 1 if len(text) > 1:
                del text[at]
            case 2:
                text[at:at] = text[at : at + 1]
            case 3:
                text.insert(at, byte)
            case 4 if at and draw(st.integers(0, 4)) == 0:
                del text[at:]
    return bytes(text)


def texts() -> st.SearchStrategy[bytes]:
    """Draw what a row may be."""
    return st.one_of(objects(), mutated(), st.binary(max_size=20), st.just(GOOD))
