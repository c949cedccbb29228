"""How many decimals a currency has: ISO 4217 alphabetic code -> minor-unit exponent.

Source: ISO 4217 list one (active codes). Codes withdrawn since 2020 stay: an order history reaches back.
"""

from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

from rfmstream.schemas.errors import ConfigError

_CODES_BY_EXPONENT: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF "
        "CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD "
        "GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL "
        "MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR "
        "PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP "
        "TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG "
        "ANG BGN CUC HRK SLL ZWL"  # withdrawn 2021 to 2026
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

CURRENCY_EXPONENTS: Final = MappingProxyType(
    {code: exponent for exponent, codes in _CODES_BY_EXPONENT.items() for code in codes.split()}
)
"""Minor units per major unit as a power of ten: CNY 2 (1 yuan = 100 fen), JPY 0, BHD 3, CLF 4."""

WITHOUT_MINOR_UNIT: Final = frozenset(
    ("XAG", "XAU", "XBA", "XBB", "XBC", "XBD", "XDR", "XPD", "XPT", "XSU", "XTS", "XUA", "XXX")
)
"""Codes ISO 4217 gives no minor unit (metals, units of account, tests): amounts in them are not money."""


def currency_exponent(code: str, *, file: str | None = None, key: str | None = "currency") -> int:
    """Return the exponent of `code`; `file` and `key` go into the error of a code that has none.

    Errors  ConfigError  an unknown code (case counts, as in the standard) or one without a minor unit
    """
    exponent = CURRENCY_EXPONENTS.get(code)
    if exponent is not None:
        return exponent
    if code in WITHOUT_MINOR_UNIT:
        raise ConfigError(
            f"{code} has no minor unit in ISO 4217", file=file, key=key, fix="name a currency of orders"
        )
    near = get_close_matches(code.upper(), CURRENCY_EXPONENTS, n=1, cutoff=0.6)
    fix = f"did you mean {near[0]}?" if near else "use a three-letter code such as CNY, EUR or USD"
    raise ConfigError(f"{code!r} is not an ISO 4217 currency code", file=file, key=key, fix=fix)
