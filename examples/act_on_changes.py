"""Act on a worker's tier changes as they happen: a Kafka consumer in Python.

    pip install rfmstream
    python act_on_changes.py --bootstrap-servers 127.0.0.1:9092 --topic rfm.tier-changes.v1 --ruleset rfm8

Three things make it right: it reads what is committed alone, it acts on no history (`mode` replay), and it drops what
it has acted on already, by the event's identity, because a consumer that dies may get an event again.
"""

import argparse
import asyncio
import json

from aiokafka import AIOKafkaConsumer

from rfmstream import load_ruleset


async def main() -> None:
    arguments = parsed()
    playbooks = {tier.id: tier.playbook for tier in load_ruleset(arguments.ruleset).tiers}
    consumer = AIOKafkaConsumer(
        arguments.topic,
        bootstrap_servers=arguments.bootstrap_servers,
        group_id=arguments.group,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    await consumer.start()
    # A real consumer keeps these where its effects are, such as a table with a unique key.
    done: set[tuple[str, str]] = set()
    try:
        while True:
            batches = await consumer.getmany(timeout_ms=arguments.idle_ms or 60_000)
            if not batches and arguments.idle_ms:
                break
            for record in (record for batch in batches.values() for record in batch):
                headers = dict(record.headers)
                identity = headers["ce_source"].decode(), headers["ce_id"].decode()
                change = json.loads(record.value)
                is_history = change["mode"] == "replay" and not arguments.include_replay
                if is_history or identity in done or change["to_tier"] is None:
                    continue
                act(change, playbooks[change["to_tier"]].actions[0])
                done.add(identity)
            # Only now: what was not acted on comes again.
            await consumer.commit()
    finally:
        await consumer.stop()


def act(change: dict[str, object], action: str) -> None:
    """Do what the playbook says; here it is printed."""
    print(f"{change['customer_id']} {change['from_tier']} -> {change['to_tier']}: {action}", flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bootstrap-servers", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="rfm.tier-changes.v1")
    parser.add_argument("--group", default="act-on-changes")
    parser.add_argument("--ruleset", default="rfm8")
    parser.add_argument("--include-replay", action="store_true", help="act on history, too")
    parser.add_argument("--idle-ms", type=int, help="end after so long without a change")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
