# make run: build the wheel into .venv and run the main job.  make test: every test that gates.
PYTHON ?= python3

help:
	@echo "make run | test | bench | wheel | clean"

check:
	@$(PYTHON) tools/check_tools.py

run: check
	$(PYTHON) tools/matrix.py --only-this --venv .venv --no-test
	.venv/bin/gort demo

test: check
	cargo test --quiet -p gort-core
	$(PYTHON) tools/matrix.py

wheel: check
	$(PYTHON) tools/matrix.py --no-test

clean:
	rm -rf target dist .venv .venv-*

.PHONY: help check run test wheel clean
