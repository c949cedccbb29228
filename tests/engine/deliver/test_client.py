"""The client against real servers on loopback; which addresses a destination may have."""

import asyncio
import random
import ssl
import time
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from deliver_receiver import receiver

from rfmstream.engine.deliver.addresses import ForbiddenAddressError, PublicResolver, is_public
from rfmstream.engine.deliver.backoff import Backoff, retry_after_s
from rfmstream.engine.deliver.client import HttpClient
from rfmstream.engine.deliver.model import Answer, Request


def sent(url: str, *, timeout_s: float = 5, allow_private: bool = True, ca_file: str | None = None) -> Answer:
    async def send() -> Answer:
        client = HttpClient(timeout_s=timeout_s, allow_private=allow_private, ca_file=ca_file)
        try:
            return await client.send(Request("POST", url, {"x-a": "b"}, b"{}"))
        finally:
            await client.close()

    return asyncio.run(send())


def test_an_answer_comes_with_its_body_and_retry_after() -> None:
    with receiver() as there:
        there.answer = lambda *_: web.Response(status=503, text="wait", headers={"retry-after": "7"})
        assert sent(there.url) == Answer(503, b"wait", 7.0)
        [one] = there.requests
        assert (one.method, one.body, one.headers["x-a"]) == ("POST", b"{}", "b")
        assert one.headers["user-agent"] == "rfmstream"


def test_redirects_are_not_followed() -> None:
    with receiver() as there:
        there.answer = lambda *_: web.Response(status=307, headers={"location": f"{there.url}/elsewhere"})
        assert sent(there.url).status == 307
        assert [one.path for one in there.requests] == ["/"]


def test_no_answer_is_one_of_status_0() -> None:
    with receiver() as there:
        there.delay_s = 5
        assert sent(there.url, timeout_s=0.2) == Answer(0, error="no answer in time")
    gone = sent(there.url)
    assert gone.status == 0
    assert gone.error


def test_names_that_lead_inside_are_refused_when_they_are_looked_up() -> None:
    with receiver() as there:
        answer = sent(f"http://localhost:{there.port}/", allow_private=False)
        assert answer.status == 0
        assert "is not public" in answer.error
        assert there.requests == []


def test_certificates_are_verified(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    for name, one in (("ca", authority), ("other", other)):
        one.cert_pem.write_to_path(tmp_path / f"{name}.pem")

    async def serve_and_send() -> list[Answer]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        app = web.Application()

        async def take(_: web.Request) -> web.Response:
            return web.Response(status=204)

        app.router.add_post("/", take)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        port = runner.addresses[0][1]
        answers = []
        for name, host in (("ca", "localhost"), ("ca", "127.0.0.1"), ("other", "localhost")):
            client = HttpClient(timeout_s=5, allow_private=True, ca_file=str(tmp_path / f"{name}.pem"))
            answers.append(await client.send(Request("POST", f"https://{host}:{port}/", {}, b"")))
            await client.close()
        await runner.cleanup()
        return answers

    good, other_host, untrusted = asyncio.run(serve_and_send())
    assert good.status == 204
    assert (other_host.status, untrusted.status) == (0, 0)
    assert "certificate" in other_host.error.lower()
    assert "certificate" in untrusted.error.lower()


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1"),  # noqa: S104
        *(
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "example.com",
            "",
        ),
    ],
)
def test_addresses_inside(address: str) -> None:
    assert not is_public(address)


class Rebinding(AbstractResolver):
    """A name server that gives a public address at first and an inside one then."""

    def __init__(self) -> None:
        self.answers = iter(["8.8.8.8", "127.0.0.1"])

    async def resolve(self, host: str, port: int = 0, family: object = 0) -> list[ResolveResult]:  # noqa: ARG002
        return [
            ResolveResult(hostname=host, host=next(self.answers), port=port, family=2, proto=0, flags=0)  # type: ignore[arg-type]
        ]

    async def close(self) -> None:
        pass


def test_the_address_that_is_checked_is_the_one_that_is_connected_to() -> None:
    async def twice() -> None:
        resolver = PublicResolver(Rebinding())
        assert (await resolver.resolve("example.com"))[0]["host"] == "8.8.8.8"
        with pytest.raises(ForbiddenAddressError, match=r"example\.com leads to 127\.0\.0\.1"):
            await resolver.resolve("example.com")

    asyncio.run(twice())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), ("1.5", 1.5), (None, None), ("soon", None), ("-1", None), ("", None)],
)
def test_retry_after_is_read(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, 0.0) == seconds


def test_retry_after_may_be_a_date() -> None:
    assert retry_after_s("Fri, 27 Nov 2026 12:00:07 GMT", 1_795_780_800.0) == 7.0
    assert retry_after_s("Fri, 27 Nov 2026 12:00:07 GMT", time.time() + 1e9) == 0.0


def test_waits_double_up_to_a_limit_and_are_not_all_the_same() -> None:
    backoff, chance = Backoff(1.0, 60.0), random.Random(1)
    for tries, whole in ((1, 1), (2, 2), (5, 16), (7, 60), (10_000, 60)):
        waits = [backoff.wait_s(tries, chance) for _ in range(100)]
        assert whole / 2 <= min(waits) < max(waits) <= whole
        assert len(set(waits)) > 50
