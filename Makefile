# make run: build the wheel into .venv and run the main job.   make test: every test that gates.
# PY="3.11 3.14" picks Pythons, PYTHON=python3.12 the one that runs the tools, TESTS=tests/test_x.py files.
PYTHON ?= python3
TIMES ?= 20
TOOL = .venv-tools/bin
# Needs Rust's nightly. Runtimes are never freed, and its fake stacks know nothing of switches; the tests of guards fault on purpose, and the
# patcher's make programs it cannot load (at fixed addresses).
CARGO_ASAN = RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/asan \
	ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1 cargo +nightly test --quiet --locked -p gort-core
CARGO_LOOM = RUSTFLAGS="--cfg loom --cfg model" CARGO_TARGET_DIR=target/loom LOOM_MAX_PREEMPTIONS=2
# SHUTTLE=100000: schedules of each test. SEED=n TEST=name: that one again; PROMPT=1 without stores that come late, TRACE=1 step by step.
CARGO_SHUTTLE = RUSTFLAGS="--cfg shuttle --cfg model" CARGO_TARGET_DIR=target/shuttle SHUTTLE="$(SHUTTLE)" \
	SHUTTLE_SEED="$(SEED)" SHUTTLE_PROMPT="$(PROMPT)" SHUTTLE_TRACE="$(TRACE)" cargo test --quiet --locked --profile fast -p gort-core --lib
# every part of `make test` says how long it took
timed = @start=$$(date +%s); echo "-- $(1)"; $(2) && echo "-- $(1): $$(( $$(date +%s) - start )) s"

help:
	@echo "make run | test | lint | core | loom | shuttle | python | stress | wheel | bench | compat | malloc | executor | fuzz | soak | churn | asan | valgrind | mutants | audit | diagrams | format | clean"

check:
	@$(PYTHON) tools/check_tools.py

check-test:
	@$(PYTHON) tools/check_tools.py test

run: check
	$(PYTHON) tools/matrix.py --only-this --venv .venv --no-test
	.venv/bin/gort demo

test: check-test lint core loom shuttle python

# Style and types: rustfmt, clippy, ruff, mypy.
lint: check-test
	$(call timed,lint,$(PYTHON) tools/lint.py)

# The core without Python.
core: check-test
	$(call timed,core,cargo test --quiet --locked -p gort-core)

# The core's concurrent parts in every order of their steps.
loom: check-test
	$(call timed,loom,$(CARGO_LOOM) cargo test --quiet --locked --release -p gort-core --lib model)

# The whole scheduler, goroutines as threads, in many schedules: rust/core/src/sched/shuttled.
shuttle: check-test
	$(call timed,shuttle,$(CARGO_SHUTTLE) $(or $(TEST),shuttled))

# Whether `make shuttle` finds what it should: the scheduler without one line at a time.
mutants: check-test
	SHUTTLE="$(or $(SHUTTLE),1500)" $(PYTHON) tools/mutants.py $(MUTANTS)

# The wheel and the whole suite on every CPython found.
python: check-test
	$(call timed,python,$(PYTHON) tools/matrix.py)

# The suite TIMES times, and the long mixes once, on the oldest and the newest released Python.
stress: check-test
	PY="$(or $(PY),3.11 3.14)" TIMES=$(TIMES) $(PYTHON) tools/matrix.py
	if [ -d tests/stress ]; then PY="$(or $(PY),3.11 3.14)" TESTS="tests/stress" PYTEST="-m stress" $(PYTHON) tools/matrix.py; fi

wheel: check
	$(PYTHON) tools/wheels.py

bench: check
	$(PYTHON) tools/bench.py $(BENCH)

# docs/services-3.x.svg from benches/results: requests per second and p99 of servers, echo, packets, TLS.
services:
	for minor in $(or $(PY),3.11); do $(PYTHON) benches/services.py $$minor || exit; done

# CPython's own test files, plain and under gort: docs/compat.md. FILES=test_queue MODES=goroutine: a part of it.
compat: check
	PY="$(PY)" FILES="$(FILES)" MODES="$(MODES)" $(PYTHON) tools/compat.py $(COMPAT)

# CPython's own test files with Python's memory served by gort. FILES=test_dict: other files.
malloc: check-test
	PY="$(PY)" FILES="$(FILES)" $(PYTHON) tools/malloc_tests.py

# CPython's own cases for executors, with gort.futures.Executor.
executor: check-test
	PY="$(PY)" $(PYTHON) tools/executor_tests.py

# Random programs against Go's rules; prints the least one that differs. PROGRAMS=100000 SEED=5: more, and others.
fuzz: check-test
	PY="$(PY)" PROGRAMS="$(or $(PROGRAMS),10000)" SEED="$(or $(SEED),0)" TESTS="tests/test_fuzz.py" PYTEST="-s" $(PYTHON) tools/matrix.py

# Everything at once for SOAK seconds on every Python found: do memory, threads and descriptors stay where they are?
soak: check-test
	PY="$(PY)" SOAK="$(or $(SOAK),1200)" SOAK_TO="$(or $(SOAK_TO),target/soak)" TESTS="tests/stress/test_stress.py" \
		PYTEST="-s -m stress -k nothing_grows" $(PYTHON) tools/matrix.py

# Connections that open and end in every way for CHURN seconds: do descriptors, threads, goroutines stay where they are?
churn: check-test
	PY="$(or $(PY),3.11)" CHURN="$(or $(CHURN),600)" TESTS="tests/stress/test_stress.py" PYTEST="-s -m stress -k churn" \
		$(PYTHON) tools/matrix.py

# The core's tests under AddressSanitizer.
asan: check-test
	$(CARGO_ASAN) --target $$(rustc -vV | sed -n 's/host: //p') --lib --test fork --test netpoll --test scheduler

# The wheel, its C shim and CPython under Valgrind's memcheck: tools/valgrind.py.
valgrind: check-test
	PY="$(or $(PY),3.11)" TESTS="$(TESTS)" $(PYTHON) tools/valgrind.py

# What C code keeps of its thread over calls, in every CPython found: docs/design/003-moving.md.
audit: check-test
	PY="$(PY)" $(PYTHON) tools/audit_moving.py --every --cache target/audit $(AUDIT)

# Has the mermaid package parse every diagram of the documents. Needs node and npm.
diagrams:
	npm install --silent --no-fund --no-audit --prefix target/mermaid mermaid@11 jsdom@26
	node tools/diagrams.mjs target/mermaid $$(git ls-files '*.md')

format: check-test
	$(PYTHON) tools/lint.py --fix

clean:
	rm -rf target dist .venv .venv-* benches/.venv-bench gort-demo.html

.PHONY: help check check-test run test lint core loom shuttle mutants python stress wheel bench services compat malloc executor fuzz soak churn asan valgrind audit diagrams format clean
