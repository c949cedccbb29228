"""On PYTHONPATH, a fault of the processes below: who decodes a value with b"poison" in it dies as RFM_FAULT says."""

import os
import signal
from typing import Any

_FAULT = os.environ.get("RFM_FAULT")


def _install(fault: str) -> None:
    from rfmstream.engine.live import decode  # noqa: PLC0415 - no process but those that ask for it

    whole = decode.Decoder.decode

    def dying(self: decode.Decoder, records: Any) -> Any:  # noqa: ANN401
        if any(b"poison" in (value or b"") for value in records.values):
            if fault == "raise":
                raise RuntimeError("a bug of ours")
            if fault == "hang":
                while True:
                    pass
            os.kill(os.getpid(), getattr(signal, fault))
        return whole(self, records)

    decode.Decoder.decode = dying  # type: ignore[method-assign]


if _FAULT:
    _install(_FAULT)
