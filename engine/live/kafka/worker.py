"""The live worker: a member of the group, with a runner for each partition it is given.

    broker --fetches--> Consumer (a thread) --> Faust's agent --> Lane --> Runner --> KafkaPartitionLog --> broker

A pool of threads computes the partitions' steps. Heartbeats run on the event loop of the consumer's thread, and all
else on one other event loop.
"""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from aiokafka import errors as kafka

from rfmstream.engine.files.interrupts import ending_signals
from rfmstream.engine.live.board import Board, Watched
from rfmstream.engine.live.config import WorkerConfig
from rfmstream.engine.live.decoders import check_keys, decoder_of, recipe_of
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.feed import Feed
from rfmstream.engine.live.http import StatusServer
from rfmstream.engine.live.kafka.client import as_rfm_error
from rfmstream.engine.live.kafka.lane import STOP_S_MAX, Lane, Reads
from rfmstream.engine.live.kafka.merged_log import MergedPartitionLog
from rfmstream.engine.live.kafka.merged_reads import MergedReads, read_as_one
from rfmstream.engine.live.kafka.output import KafkaPartitionLog, ViewOutput
from rfmstream.engine.live.kafka.seams import install_answers, install_fetches, install_lock
from rfmstream.engine.live.kafka.topic_ids import id_of
from rfmstream.engine.live.kafka.topics import input_ids, prepare_topics
from rfmstream.engine.live.kafka.transactions import Transactions
from rfmstream.engine.live.kafka.transport import App, Fetched, Reading
from rfmstream.engine.live.kafka.watermarks import high_watermarks
from rfmstream.engine.live.mapped import fingerprint
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.options import RunnerOptions
from rfmstream.engine.live.page import Draws
from rfmstream.engine.live.placement import Placement
from rfmstream.engine.live.plain import is_parted
from rfmstream.engine.live.runner import Runner
from rfmstream.engine.live.stats import PartitionStats, no_changes
from rfmstream.engine.live.store import Store
from rfmstream.engine.live.trials import Trials
from rfmstream.engine.live.warm import warm_up
from rfmstream.engine.service.garbage import collect_rarely
from rfmstream.engine.service.page_server import tls_context
from rfmstream.schemas.errors import RfmError, TransportError

if TYPE_CHECKING:
    from rfmstream.engine.live.view_history import ViewHistory

_T = TypeVar("_T")

ENDS_EVERY_S: Final = 5.0

LEAVE_S_MAX: Final = 1.5
"""For leaving the group, after the lanes have stopped: together less than the ten seconds a stop may take."""

_SWITCH_S: Final = 0.0005

_log = logging.getLogger(__name__)


def run_worker(config: WorkerConfig, draws: Draws | None = None) -> int:
    """Run a worker until SIGTERM, Ctrl-C, or the end it was told to reach; return the exit code 0.

    In      draws  makes the page; None: there is none
    Errors  ConfigError     refused before anything was read
            StateError      a checkpoint or the state cannot be trusted
            TransportError  the brokers do not answer
    """
    collect_rarely()
    # So soon a thread that computes a step yields to the event loop, which sends requests; the default is 5 ms.
    sys.setswitchinterval(_SWITCH_S)
    install_lock()  # for the loop's thread: what is large goes to the pool
    asyncio.run(Worker(config, draws).run())
    return 0


@dataclass
class _Held:
    """A runner, what it has done, and what its lane asks of the consumer."""

    runner: Runner
    stats: PartitionStats
    reads: Reads


class Worker:
    """One worker process."""

    def __init__(self, config: WorkerConfig, draws: Draws | None = None) -> None:
        self._config = config
        self._draws = draws
        views = () if config.views is None else config.views.views
        self._board = Board(config.ruleset, config.clock, rules=config.rules, views=views)
        if config.listen is not None:
            self._board.feed = Feed(config.ruleset, views=config.plan.views)
            if any(view.shadow for view in config.plan.views):
                self._board.shadows = Feed(config.ruleset, views=config.plan.views)
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="step")
        recipe = recipe_of(config)
        self._decoder = decoder_of(recipe)
        self._trials = Trials(recipe)
        self._store = Store(config.checkpoints, app_id=config.app_id, keep=config.checkpoints_kept)
        self._reading = Reading(config, self._fail)
        self._transactions = Transactions(config.client, config.app_id)
        self._lanes: dict[Source, Lane] = {}
        self._merges: dict[Source, MergedReads] = {}
        self._parked: dict[Source, _Held] = {}
        self._behind: set[Source] = set()
        self._has_told_end = False
        self._partitions = 1
        self._history: ViewHistory | None = None
        self._topic_ids: dict[str, str] = {}
        self._error: BaseException | None = None
        self._stop = asyncio.Event()
        self._parked_all = asyncio.Event()
        self._parked_all.set()

    async def run(self) -> None:
        """Run until there is a reason to stop, and stop in good order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, *ending_signals()):
            loop.add_signal_handler(number, self._stop.set)
        install_answers()
        await self._in_pool(self._store.check)
        partitions = await self._unless_stopped(prepare_topics(self._config))
        if partitions is None:
            return
        self._reading.partitions = self._partitions = partitions
        self._history = _history_of(self._config, partitions)
        if partitions > 1:
            check_keys(self._decoder)
        self._board.expected = [Source.of(self._config.input_topics, number) for number in range(partitions)]
        self._topic_ids = await self._unless_stopped(input_ids(self._config)) or {}
        status = self._status()
        try:
            if status is not None:
                await status.start()
                self._reading.url = self._url(status)
            _log.info(
                "worker starts",
                extra={
                    "app_id": self._config.app_id,
                    "topics": ",".join(self._config.input_topics),
                    "partitions": partitions,
                    "ruleset": self._config.ruleset.identity,
                    "views": None if self._config.views is None else ", ".join(self._config.views.names),
                    "status": None if status is None else status.url,
                    "data": None if status is None else status.data_url,
                },
            )
            warm = partial(warm_up, self._config.plan, self._config.clock, self._decoder)
            await self._unless_stopped(self._in_pool(warm))
            if self._draws is not None and status is not None:
                await self._unless_stopped(self._in_pool(self._draws.warm_up))
            await self._unless_stopped(self._in_pool(install_fetches))
            await self._read()
        finally:
            if status is not None:
                await status.stop()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._trials.close()
        if self._error is not None:
            raise self._error
        _log.info("worker stopped")

    def _status(self) -> StatusServer | None:
        config = self._config
        if config.listen is None:
            return None
        cert = config.listen_tls_cert_file
        return StatusServer(
            config.listen,
            self._board,
            config.listen_token,
            listen_data=config.listen_data,
            tls=None if cert is None else tls_context(cert, config.listen_tls_key_file),
            draws=self._draws,
        )

    def _url(self, status: StatusServer) -> str:
        """Return where other workers may send whoever asks them for our customers; "": nowhere."""
        # Of an address that stands for all of a machine's nobody knows the name.
        is_any = urlsplit(status.data_url).hostname in ("0.0.0.0", "::")  # noqa: S104
        return self._config.listen_url or ("" if is_any else status.data_url)

    async def _unless_stopped(self, doing: Coroutine[Any, Any, _T]) -> _T | None:
        """Return the result; None if the worker was told to stop first, since brokers may take long to answer."""
        task, stop = asyncio.create_task(doing), asyncio.create_task(self._stop.wait())
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait([task])
        return None

    async def _read(self) -> None:
        self._app = App(self._reading, self._receive)
        self._app.on_partitions_assigned.connect(self._on_assigned)
        self._app.on_partitions_revoked.connect(self._on_revoked)
        start = asyncio.create_task(self._app.start())
        crash = asyncio.create_task(self._watch(start))
        ends = asyncio.create_task(self._watch_ends())
        await self._stop.wait()
        ends.cancel()
        # Wait for revoked lanes that still finish their steps: they need the transactions.
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S_MAX):
                await self._parked_all.wait()
        # Stop the lanes first, while we are a member: all must be written before others own the partitions.
        await asyncio.gather(*(lane.stop() for lane in self._lanes.values()), return_exceptions=True)
        await asyncio.gather(*(held.runner.close() for held in self._parked.values()))
        await self._transactions.close()
        crash.cancel()
        start.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S_MAX):
                await self._app.stop()

    async def _watch(self, start: "asyncio.Task[Any]") -> None:
        """End the worker where Faust has ended."""
        try:
            await start
            await self._app.wait_until_stopped()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends the worker
            self._fail(as_rfm_error(error, self._config.client, "the consumer failed"))
            return
        reason = self._app.crash_reason
        self._fail(
            TransportError("the consumer has stopped")
            if reason is None
            else as_rfm_error(reason, self._config.client, "the consumer failed")
        )

    async def _watch_ends(self) -> None:
        """Keep the lag up to date while nothing is fetched."""
        while True:
            await asyncio.sleep(ENDS_EVERY_S)
            parts = [part for source in self._lanes for part in source.parts]
            try:
                async with asyncio.timeout(ENDS_EVERY_S):
                    ends = await high_watermarks(await self._transactions.client(), parts)
            except (kafka.KafkaError, OSError, TimeoutError):
                continue
            for source, lane in self._lanes.items():
                if all(part in ends for part in source.parts):
                    lane.stats.end = max(lane.stats.end, sum(ends[part] for part in source.parts))

    def _receive(self, source: Source, fetched: Fetched) -> None:
        merge = self._merges.get(source)
        if merge is not None:
            merge.receive(source, fetched)
        else:
            self._pass_on(source, fetched)

    def _pass_on(self, source: Source, fetched: Fetched) -> None:
        lane = self._lanes.get(source)
        if lane is not None:
            lane.receive(fetched)

    async def _on_assigned(self, _: App, assigned: Iterable[Any], **__: Any) -> None:  # noqa: ANN401 - Faust's
        """Begin to recover in the background, so that heartbeats go on; each lane seeks when its state is there."""
        if self._stop.is_set():
            return
        self._transactions.member = self._reading.member
        try:
            sources = read_as_one(self._config.input_topics, (Source(*tp) for tp in assigned))
        except RfmError as error:
            self._fail(error)
            return
        self._board.owners = {
            source: url
            for source in self._board.expected
            if (url := self._reading.owners.get(source.parts[0])) is not None
        }
        gone = [self._parked.pop(source) for source in list(self._parked) if source not in sources]
        self._behind = set(sources)
        for source in sources:
            held = self._parked.pop(source, None)
            self._begin(source, held or self._new(source), parked=held is not None)
        self._board.rebalances += 1
        self._board.joined = True
        _log.info("partitions assigned", extra={"count": len(sources), "given_up": len(gone)})
        await asyncio.gather(*(held.runner.close() for held in gone))

    async def _on_revoked(self, _: App, revoked: Iterable[Any], **__: Any) -> None:  # noqa: ANN401 - Faust's
        """Finish the steps in flight; keep the states until the next assignment tells which partitions come back."""
        del revoked  # all of them: the protocol is the eager one
        lanes, self._lanes = self._lanes, {}
        reads, self._merges = {source: lane.reads for source, lane in lanes.items()}, {}
        self._parked_all.clear()
        try:
            runners = await asyncio.gather(*(lane.park() for lane in lanes.values()))
        finally:
            self._parked_all.set()
        for lane, runner in zip(lanes.values(), runners, strict=True):
            self._board.partitions.pop(lane.source, None)
            if runner is not None:
                self._parked[lane.source] = _Held(runner, lane.stats, reads[lane.source])

    def _begin(self, source: Source, held: _Held, *, parked: bool) -> None:
        self._lanes[source] = Lane(
            source,
            held.runner,
            held.stats,
            parked=parked,
            reads=held.reads,
            gather_s=self._config.commit_interval_ms / 1000,
            failed=self._fail,
            finished=self._check_end,
            caught_up=self._tell_end_of_history,
        )
        if isinstance(held.reads, MergedReads):
            self._merges |= dict.fromkeys(source.parts, held.reads)
        self._board.partitions[source] = Watched(held.stats, held.runner.snapshot, held.runner)

    def _new(self, source: Source) -> _Held:
        config = self._config
        stats = PartitionStats(placement=Placement(source.partition, self._partitions))
        for view in config.plan.views:
            stats.of(view.name).changes = no_changes(view.ruleset)
        # Whoever follows the changes of all views acts on them, and shadows are for nobody to act on.
        feeds = {
            view.name: feed for view in config.plan.views if (feed := self._board.feed_of(view)) is not None
        }
        if feeds:
            stats.told = lambda view, changes: feeds[view].add(changes)
        # A customer whose records are in several partitions has a state in each, and each numbers its changes.
        views = {
            view.name: ViewOutput(
                Encoder(
                    view.ruleset,
                    source=f"{config.ce_source}/{source.topic}/{source.partition}",
                    structured=config.structured,
                    view=view.name if view.shadow or is_parted(config.plan) else None,
                ),
                view.shadow,
            )
            for view in config.plan.views
        }
        log_of = MergedPartitionLog if source.is_merged else KafkaPartitionLog
        log = log_of(
            source,
            transactions=self._transactions,
            client=config.client,
            app_id=config.app_id,
            outputs=config.outputs,
            encoder=next(iter(views.values())).encoder,
            views=views,
            compression=None if config.compression == "none" else config.compression,
            run=self._in_pool,
            partitions=self._partitions,
            accept_gap=config.accept_gap,
        )
        options = RunnerOptions(
            clock=config.clock,
            tolerance_us=config.time_tolerance_us,
            checkpoint_interval_s=config.checkpoint_interval_s,
            erase_within_us=config.erase_within,
            resegment=config.plan.names if config.resegment else config.resegment_view,
            accept_gap=config.accept_gap,
            until_end=config.until_end,
            as_of_us=config.as_of_us,
            topic_id=id_of(source, self._topic_ids),
            input_map=None if config.input_map is None else fingerprint(config.input_map),
            current_topic=config.outputs.current,
            history=self._history,
        )
        runner = Runner(
            source,
            ruleset=config.plan,
            options=options,
            log=log,
            store=self._store,
            decoder=self._decoder,
            run=self._in_pool,
            now_us=lambda: time.time_ns() // 1000,
            stats=stats,
            trials=self._trials,
        )
        return _Held(
            runner, stats, self._merged(source, log) if isinstance(log, MergedPartitionLog) else self
        )

    def _merged(self, source: Source, log: MergedPartitionLog) -> MergedReads:
        ranks = {topic: rank for rank, topic in enumerate(self._config.input_topics)}
        until_end = self._config.until_end

        return MergedReads(source, self, log, ranks=ranks, until_end=until_end, receive=self._pass_on)

    async def seek_lane(self, source: Source, offset: int, epoch: int) -> bool:
        """Read a partition from an offset on; False if it is not ours any more."""
        return bool(await self._app.consumer.seek_lane(source, offset, epoch))

    def withhold(self, source: Source) -> None:
        """Bring nothing of a partition until `release`."""
        self._reading.withheld.add(source)

    def release(self, source: Source) -> None:
        """Bring more."""
        self._reading.withheld.discard(source)

    def _check_end(self) -> None:
        # No lane: a rebalance is under way, and the lane that calls was just revoked.
        if self._lanes and all(lane.runner.finished for lane in self._lanes.values()):
            self._stop.set()

    def _tell_end_of_history(self, source: Source) -> None:
        """Say, once all partitions have been read to their ends, that what comes now is the present."""
        self._behind.discard(source)
        if self._behind or self._has_told_end:
            return
        self._has_told_end = True
        stats = [lane.stats for lane in self._lanes.values()]
        changes = sum(sum(one.changes.values()) for one in stats)
        records = sum(one.records + one.replayed for one in stats)
        facts = {"records": records, "partitions": len(stats)}
        _log.info("history read, %s changes, live from here", f"{changes:,}", extra=facts)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
            if not isinstance(error, RfmError):
                _log.error("unexpected", exc_info=error)
        self._stop.set()

    async def _in_pool(self, call: Callable[[], _T], *, small: bool = False) -> _T:
        if small:
            return call()
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


def _history_of(config: WorkerConfig, partitions: int) -> "ViewHistory | None":
    if config.view_history is None:
        return None
    # Loaded here, so that a worker without such files need not wait for what reads them.
    from rfmstream.engine.live.view_history import ViewHistory  # noqa: PLC0415

    return ViewHistory(config.view_history, partitions=partitions, input_map=config.view_history_map)
