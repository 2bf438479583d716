# Every verb is one line over ./run, which makes the environment the first time.
.DEFAULT_GOAL := help
.PHONY: demo test check evidence bench proto setup clean help

demo: ## a small language model learns while you watch
	@./run demo

test: ## the whole test suite
	@./run test

check: ## format, lint, types, layers, generated pages
	@./run check

evidence: ## every algorithm on three seeds, about half an hour: writes docs/evidence.md
	@./run python scripts/evidence.py

bench: ## every row beside its peer, about an hour on a quiet machine: writes docs/benchmarks.md
	@./run python -m benchmarks

proto: ## the code of the protocol that environments are served by, made from its .proto file
	@./run python scripts/proto.py

setup: ## make or mend the environment in .venv
	@./run setup

clean: ## remove the environment and the caches; runs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s%s\n", $$1, $$2}' Makefile
