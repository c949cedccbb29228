// Act on a worker's tier changes as they happen: a Kafka consumer in JavaScript.
//
//   npm install
//   node act-on-changes.mjs --bootstrap-servers 127.0.0.1:9092 --topic rfm.tier-changes.v1
//
// kafkajs unpacks gzip, which the worker writes unless it is told otherwise, and nothing else without more packages.
// kafkajs reads what is committed alone unless it is told otherwise. As in act_on_changes.py, history is left alone, and
// what was acted on already is dropped by the event's identity.
import { parseArgs } from "node:util";
import { Kafka, logLevel } from "kafkajs";

const { values: options } = parseArgs({
  options: {
    "bootstrap-servers": { type: "string", default: "127.0.0.1:9092" },
    topic: { type: "string", default: "rfm.tier-changes.v1" },
    group: { type: "string", default: "act-on-changes-js" },
    "include-replay": { type: "boolean", default: false },
    "idle-ms": { type: "string" },
  },
});

const kafka = new Kafka({
  brokers: options["bootstrap-servers"].split(","),
  clientId: "act-on-changes",
  logLevel: logLevel.ERROR,
});
const consumer = kafka.consumer({ groupId: options.group });
// A real consumer keeps these where its effects are, such as a table with a unique key.
const done = new Set();
let last = Date.now();

function act(change) {
  console.log(`${change.customer_id} ${change.from_tier} -> ${change.to_tier}: ${change.playbook}`);
}

await consumer.connect();
await consumer.subscribe({ topic: options.topic, fromBeginning: true });
await consumer.run({
  eachMessage: async ({ message }) => {
    last = Date.now();
    const identity = `${message.headers.ce_source}\n${message.headers.ce_id}`;
    // Amounts beyond 2^53 minor units would be rounded here; use a parser of big integers where there are any.
    const change = JSON.parse(message.value);
    const isHistory = change.mode === "replay" && !options["include-replay"];
    if (isHistory || done.has(identity) || change.to_tier === null) return;
    act(change);
    done.add(identity);
  },
});

if (options["idle-ms"]) {
  while (Date.now() - last < Number(options["idle-ms"])) {
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  await consumer.disconnect();
}
