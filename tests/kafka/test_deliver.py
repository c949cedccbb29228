"""Delivery against a real broker and a real receiver."""

import asyncio
import random
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from deliver_events import change
from deliver_processes import (
    SECRET,
    DeliverProcess,
    delivering,
    history,
    send_events,
    seqs_of,
    write_config,
)
from deliver_receiver import Receiver, receiver
from kafka_cluster import Broker, Cluster, free_ports
from standardwebhooks import Webhook

IN_FLIGHT = 12

WEBHOOK = """
[destinations.crm]
kind = "webhook"
url = "{url}/hook"
secrets = [{{ env = "HOOK_SECRET" }}]
allow_private = true
start = "earliest"
"""


def webhook(there: Receiver, more: str = "") -> str:
    return WEBHOOK.format(url=there.url) + more


async def create(cluster: Cluster, partitions: int = 2) -> None:
    await cluster.create(f"{cluster.name}.changes", partitions)


def assert_all_arrived(there: Receiver, expected: dict[str, list[int]], repeated_max: int) -> None:
    seen = seqs_of([one.body for one in there.taken])
    assert {customer: sorted(set(seqs)) for customer, seqs in seen.items()} == expected
    for seqs in seen.values():
        firsts = list(dict.fromkeys(seqs))
        assert firsts == sorted(firsts)
    assert sum(len(seqs) - len(set(seqs)) for seqs in seen.values()) <= repeated_max
    for one in there.taken[-50:]:  # older ones than five minutes are refused
        Webhook(SECRET).verify(one.body, one.headers)


def kill_and_restart(cluster: Cluster, folder: Path, *, changes: int, kills: int, seed: int) -> None:
    """Let a receiver fail three times in ten, and kill the deliverer again and again."""
    chance = random.Random(seed)
    events = history(40, changes)
    asyncio.run(create(cluster))
    with receiver() as there:
        there.answer = lambda *_: web.Response(status=503 if chance.random() < 0.3 else 204)
        there.delay_s = 0.005
        more = f'in_flight = {IN_FLIGHT}\nconcurrency = 8\nretry_first = "20ms"\nretry_max = "200ms"\n'
        config = write_config(folder, cluster, webhook(there, more))
        asyncio.run(send_events(cluster, events, 2))
        for _ in range(kills):
            before = len(there.requests)
            with delivering(config, folder / "deliver.log") as process:
                enough = before + chance.randrange(1, max(2 * changes // (kills + 1), 2))
                there.wait_for(
                    lambda enough=enough: len(there.requests) >= enough or len(there.taken) >= changes  # type: ignore[misc]
                )
                process.kill()
            asyncio.run(cluster.expel(f"{cluster.name}.deliver.crm"))
        with delivering(config, folder / "deliver.log") as process:
            expected = {(one.customer_id, int(one.data["seq"])) for one in events}

            def is_all_there() -> bool:
                seen = seqs_of([one.body for one in list(there.taken)])
                return {(customer, seq) for customer, seqs in seen.items() for seq in seqs} == expected

            there.wait_for(is_all_there)
            process.terminate()
            assert process.exit_code() == 0
        wanted: dict[str, list[int]] = {}
        for event in events:
            wanted.setdefault(event.customer_id, []).append(event.data["seq"])
        assert_all_arrived(there, wanted, kills * IN_FLIGHT)


def test_a_receiver_that_fails_and_kills_lose_nothing_and_keep_the_order(
    cluster: Cluster, tmp_path: Path
) -> None:
    kill_and_restart(cluster, tmp_path, changes=400, kills=4, seed=1)


@pytest.mark.deep
def test_two_hundred_kills_lose_nothing_and_keep_the_order(cluster: Cluster, tmp_path: Path) -> None:
    kill_and_restart(cluster, tmp_path, changes=20_000, kills=200, seed=2)


def test_a_poison_row_is_kept_with_the_answer_and_the_others_arrive(cluster: Cluster, tmp_path: Path) -> None:
    asyncio.run(create(cluster, 1))
    with receiver() as there:

        def answer(_: int, __: str, ___: dict[str, str], body: bytes) -> web.Response:
            rows = orjson.loads(body)["events"]
            is_bad = any(row["customer_id"] == "c137" for row in rows)
            return (
                web.Response(status=422, text="é" * 10_000)
                if is_bad
                else web.json_response({"ok": len(rows)})
            )

        there.answer = answer
        config = write_config(
            tmp_path,
            cluster,
            f"""
[destinations.batches]
kind = "http"
map = "json-batch"
settings = {{ url = "{there.url}/batch" }}
allow_private = true
start = "earliest"
concurrency = 1
""",
        )
        asyncio.run(send_events(cluster, history(500, 500), 1))
        with delivering(config, tmp_path / "deliver.log") as process:

            def rows() -> list[str]:
                return [row["customer_id"] for one in list(there.taken) for row in one.json["events"]]

            there.wait_for(lambda: len(rows()) >= 499)
            process.wait_for("a row was rejected")
            process.terminate()
            assert process.exit_code() == 0
        assert sorted(rows()) == sorted(f"c{number}" for number in range(500) if number != 137)
    [rejected] = asyncio.run(cluster.committed_records(f"{cluster.name}.refused", [0]))
    headers = dict(rejected.headers)
    assert headers["rfm-status"] == b"422"
    assert headers["rfm-destination"] == b"batches"
    assert headers["rfm-answer"] == ("é" * 10_000).encode()[:8192]
    assert rejected.key == b"c137"
    assert orjson.loads(rejected.value)["customer_id"] == "c137"


def test_nothing_is_sent_before_retry_after_has_passed(cluster: Cluster, tmp_path: Path) -> None:
    asyncio.run(create(cluster, 1))
    with receiver() as there:
        there.answer = lambda number, *_: (
            web.Response(status=429, headers={"retry-after": "2"})
            if number == 0
            else web.Response(status=204)
        )
        config = write_config(tmp_path, cluster, webhook(there, "concurrency = 1\n"))
        asyncio.run(send_events(cluster, history(20, 20), 1))
        with delivering(config, tmp_path / "deliver.log"):
            there.wait_for(lambda: len(there.taken) >= 20)
        first, second = there.requests[:2]
        assert second.at_s - first.at_s >= 2.0


def test_a_destination_that_is_gone_is_parked_alone_until_it_is_released(
    cluster: Cluster, tmp_path: Path
) -> None:
    asyncio.run(create(cluster, 1))
    with receiver() as gone, receiver() as well:
        gone.answer = lambda *_: web.Response(status=410)
        other = webhook(well).replace("destinations.crm", "destinations.other")
        config = write_config(tmp_path, cluster, webhook(gone, "concurrency = 1\n") + other)
        asyncio.run(send_events(cluster, history(10, 30), 1))
        with delivering(config, tmp_path / "deliver.log") as process:
            well.wait_for(lambda: len(well.taken) >= 30)
            process.wait_for("is parked")
            assert len(gone.requests) == 1
            gone.answer = lambda *_: web.Response(status=204)
            release = DeliverProcess(config, tmp_path / "release.log", "release")
            assert release.exit_code() == 0
            gone.wait_for(lambda: len(gone.taken) >= 30)
        assert_all_arrived(gone, {f"c{number}": [1, 2, 3] for number in range(10)}, 0)


def test_the_guard_sends_nothing_when_everybody_lapses_until_it_is_released(
    cluster: Cluster, tmp_path: Path
) -> None:
    asyncio.run(create(cluster, 2))
    asyncio.run(cluster.create(f"{cluster.name}.current", 2))
    customers = [change(f"c{number}", 1) for number in range(200)]
    asyncio.run(send_events(cluster, customers, 2, topic=f"{cluster.name}.current"))
    with receiver() as there:
        config = write_config(tmp_path, cluster, webhook(there, 'guard = "5%"\nguard_hold = "100ms"\n'))
        # A few changes pass.
        asyncio.run(send_events(cluster, customers[:5], 2))
        with delivering(config, tmp_path / "deliver.log") as process:
            there.wait_for(lambda: len(there.taken) == 5)
            asyncio.run(send_events(cluster, [change(f"c{number}", 2) for number in range(200)], 2))
            process.wait_for("the guard holds everything back")
            process.terminate()
            assert process.exit_code() == 0
        # It holds back after a restart, too.
        (tmp_path / "deliver.log").unlink()
        with delivering(config, tmp_path / "deliver.log") as process:
            process.wait_for("the guard holds everything back")
            time.sleep(1)
            assert len(there.requests) == 5
            release = DeliverProcess(config, tmp_path / "release.log", "release", "--destination", "crm")
            assert release.exit_code() == 0
            there.wait_for(lambda: len(there.taken) >= 205)
            process.terminate()
            assert process.exit_code() == 0
        assert len(there.requests) == 205


def test_a_range_and_named_events_are_sent_again_with_the_same_ids(cluster: Cluster, tmp_path: Path) -> None:
    asyncio.run(create(cluster, 1))
    start_ms = 1_795_824_000_000
    with receiver() as there:
        config = write_config(tmp_path, cluster, webhook(there))
        for number, event in enumerate([change(f"c{number}", 1) for number in range(10)]):
            asyncio.run(send_events(cluster, [event], 1, when_ms=start_ms + number * 1000))
        with delivering(config, tmp_path / "deliver.log"):
            there.wait_for(lambda: len(there.taken) >= 10)
        ids = {one.json["id"]: one.headers["webhook-id"] for one in there.taken}
        there.requests.clear()
        command = ("replay", "--from", "2026-11-28T00:00:03Z", "--to", "2026-11-28T00:00:06Z")
        assert DeliverProcess(config, tmp_path / "replay.log", *command).exit_code() == 0
        assert sorted(one.json["subject"] for one in there.taken) == ["c3", "c4", "c5"]
        assert all(ids[one.json["id"]] == one.headers["webhook-id"] for one in there.taken)
        there.requests.clear()
        names = [ids["rfm8-annual/c1/1"], "rfm8-annual/c7/1", ""]
        (tmp_path / "ids").write_text("\n".join(names))
        command = ("replay", "--ids", str(tmp_path / "ids"))
        assert DeliverProcess(config, tmp_path / "replay.log", *command).exit_code() == 0
        assert sorted(one.json["subject"] for one in there.taken) == ["c1", "c7"]
        assert (
            "crm: 2 events, 2 sent again, 0 rejected, 0 not for it" in (tmp_path / "replay.log").read_text()
        )


def test_signals_that_come_later_replays_and_the_held_out(cluster: Cluster, tmp_path: Path) -> None:
    asyncio.run(create(cluster, 1))
    asyncio.run(cluster.create(f"{cluster.name}.signals", 1))
    signal = change("s1", 1, kind="warning", tier="111", days=14)
    with receiver() as there:
        config = write_config(tmp_path, cluster, webhook(there))
        events = [change("a", 1), change("b", 1, mode="replay"), change("c", 1, holdout=True), change("d", 1)]
        asyncio.run(send_events(cluster, events, 1))
        asyncio.run(send_events(cluster, [signal], 1, topic=f"{cluster.name}.signals"))
        with delivering(config, tmp_path / "deliver.log") as process:
            there.wait_for(lambda: len(there.taken) >= 3)
            process.terminate()
            assert process.exit_code() == 0
        assert sorted(one.json["subject"] for one in there.requests) == ["a", "d", "s1"]


def test_a_stop_amid_everything_ends_within_ten_seconds(cluster: Cluster, tmp_path: Path) -> None:
    asyncio.run(create(cluster, 1))
    with receiver() as there:
        there.delay_s = 0.3
        config = write_config(tmp_path, cluster, webhook(there, "concurrency = 4\n"))
        asyncio.run(send_events(cluster, history(100, 300), 1))
        with delivering(config, tmp_path / "deliver.log") as process:
            there.wait_for(lambda: len(there.requests) >= 10)
            process.terminate()
            assert process.exit_code(10) == 0
        under_way = len(there.requests)
        there.delay_s = 0.0
        with delivering(config, tmp_path / "deliver.log") as process:
            there.wait_for(lambda: len(there.taken) >= 300)
            process.terminate()
            assert process.exit_code() == 0
        # What was under way had arrived, and was committed: nothing came twice.
        assert under_way < 300
        assert_all_arrived(there, {f"c{number}": [1, 2, 3] for number in range(100)}, 0)


@pytest.mark.deep
def test_two_processes_share_the_partitions_and_hand_them_over(cluster: Cluster, tmp_path: Path) -> None:
    asyncio.run(create(cluster, 4))
    events = history(60, 1200)
    with receiver() as there:
        there.delay_s = 0.01
        config = write_config(tmp_path, cluster, webhook(there, "concurrency = 4\n"))
        sending = threading.Thread(target=lambda: asyncio.run(send_events(cluster, events, 4)))
        sending.start()
        with delivering(config, tmp_path / "one.log") as one:
            there.wait_for(lambda: len(there.taken) >= 100)
            with delivering(config, tmp_path / "two.log") as two:
                there.wait_for(lambda: len(there.taken) >= 500)
                one.terminate()
                assert one.exit_code() == 0
                there.wait_for(lambda: len({one.headers["webhook-id"] for one in list(there.taken)}) >= 1200)
                two.terminate()
                assert two.exit_code() == 0
        sending.join()
        expected = {f"c{number}": list(range(1, 21)) for number in range(60)}
        assert_all_arrived(there, expected, 0)


def test_status_pages_say_how_destinations_fare(cluster: Cluster, tmp_path: Path) -> None:
    asyncio.run(create(cluster, 1))
    [port] = free_ports(1)

    def page(name: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    with receiver() as there:
        there.answer = lambda _, __, ___, body: web.Response(status=422 if b'"c3"' in body else 204)
        other = webhook(there).replace("destinations.crm", "destinations.gone").replace("/hook", "/gone")
        config = write_config(
            tmp_path,
            cluster,
            webhook(there) + other.replace(str(there.port), "9"),
            listen=f"127.0.0.1:{port}",
        )
        asyncio.run(send_events(cluster, [*history(10, 10), change("x", 1, mode="replay")], 1))
        with delivering(config, tmp_path / "deliver.log") as process:
            process.wait_for("a row was rejected")
            there.wait_for(lambda: len(there.taken) >= 9)
            there.wait_for(lambda: page("readyz")[0] == 200)
            assert page("healthz") == (200, "ok\n")
            shown = {one["name"]: one for one in orjson.loads(page("readyz")[1])["destinations"]}
            assert shown["crm"]["sent"] == 9
            assert shown["crm"]["rejected"] == 1
            assert shown["gone"]["sent"] == 0
            there.wait_for(
                lambda: (
                    'rfmstream_deliver_filtered_total{by="mode",destination="crm"} 1.0' in page("metrics")[1]
                )
            )
            text = page("metrics")[1]
            assert 'rfmstream_deliver_sent_total{destination="crm"} 9.0' in text
            assert 'rfmstream_deliver_rejected_total{destination="crm"} 1.0' in text
            assert 'rfmstream_deliver_lag_records{destination="gone"} 11.0' in text
            process.terminate()
            assert process.exit_code() == 0
        assert SECRET.removeprefix("whsec_") not in (tmp_path / "deliver.log").read_text()


def test_retention_that_is_about_to_delete_what_waits_is_told(cluster: Cluster, tmp_path: Path) -> None:
    asyncio.run(cluster.create(f"{cluster.name}.changes", 1, retention_ms=str(3 * 3_600_000)))
    two_hours_ago_ms = int(time.time() * 1000) - 2 * 3_600_000
    asyncio.run(send_events(cluster, history(2, 2), 1, when_ms=two_hours_ago_ms))
    with receiver() as there:
        nobody = webhook(there).replace(str(there.port), "9")
        config = write_config(tmp_path, cluster, nobody)
        with delivering(config, tmp_path / "deliver.log") as process:
            process.wait_for("undelivered events will be deleted by the topic's retention")
            process.terminate()
            assert process.exit_code() == 0


def test_a_broker_that_restarts_costs_nothing(own_broker: Broker, tmp_path: Path) -> None:
    cluster = Cluster(own_broker.bootstrap, "t")
    asyncio.run(create(cluster, 1))
    asyncio.run(send_events(cluster, history(50, 400), 1))
    with receiver() as there:
        there.delay_s = 0.02
        config = write_config(tmp_path, cluster, webhook(there, "concurrency = 4\n"))
        with delivering(config, tmp_path / "deliver.log") as process:
            there.wait_for(lambda: len(there.taken) >= 50)
            own_broker.stop()
            own_broker.start()
            there.wait_for(lambda: len({one.headers["webhook-id"] for one in list(there.taken)}) >= 400, 150)
            process.terminate()
            assert process.exit_code() == 0
        assert_all_arrived(there, {f"c{number}": list(range(1, 9)) for number in range(50)}, 1000)
