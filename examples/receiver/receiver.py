"""A receiver of `rfmstream deliver`'s webhooks: checks the signature, drops duplicates, prints what arrives.

    RECEIVER_SECRET=whsec_... python examples/receiver/receiver.py [--port 8700]

It is what an endpoint of one's own has to do, in one file; Standard Webhooks has libraries for a dozen languages that
do the checking. An event may arrive twice, and a customer's events arrive in order.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections import OrderedDict

from aiohttp import web

TOLERANCE_S = 300
REMEMBERED = 100_000


def is_signed(secret: bytes, request: web.Request, body: bytes) -> bool:
    """Tell whether a request was signed with the secret within the last five minutes."""
    message_id = request.headers.get("webhook-id", "")
    timestamp = request.headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_S:
        return False
    signed = hmac.digest(secret, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    expected = f"v1,{base64.b64encode(signed).decode()}"
    given = request.headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(expected.encode(), one.encode()) for one in given)


def line(event: dict[str, object]) -> str:
    """Return an event as a line for people."""
    data = event["data"]
    assert isinstance(data, dict)
    if "to_tier" in data:
        before, after = data["from_tier"] or "no tier", data["to_tier"] or "no tier"
        what = f"{before} -> {after} {data.get('to_tier_en') or ''} ({data['reason']}), playbook {data.get('playbook')}"
    else:
        what = f"{data['kind']} in {data['tier']}"
    return f"webhook  {event['time']}  customer {data['customer_id']}: {what}"


def application(secret: bytes) -> web.Application:
    """Return the receiver."""
    seen: OrderedDict[str, None] = OrderedDict()

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        if not is_signed(secret, request, body):
            return web.Response(status=403, text="the signature is wrong\n")
        message_id = request.headers["webhook-id"]
        if message_id not in seen:
            seen[message_id] = None
            if len(seen) > REMEMBERED:
                seen.popitem(last=False)
            print(line(json.loads(body)), flush=True)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    return app


def main() -> int:
    """Listen on loopback until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8700)
    options = parser.parse_args()
    secret = os.environ.get("RECEIVER_SECRET", "")
    if not secret.startswith("whsec_"):
        print("receiver: set RECEIVER_SECRET to whsec_ and the secret in base 64", file=sys.stderr)
        return 2
    key = base64.b64decode(secret.removeprefix("whsec_"))
    web.run_app(application(key), host="127.0.0.1", port=options.port, access_log=None, print=None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
