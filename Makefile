# The commands of a checkout. Each does only what is missing.

BUILD  := build
PYTHON := $(BUILD)/venv/bin/python
JOBS   ?= $(shell nproc)
FUZZ_SECONDS ?= 60
export FUZZ_SECONDS
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)

.PHONY: help setup build demo check bench doc format coverage fuzz wheel clean

help:
	@echo "make demo      set up, build, and generate text with SmolLM2-135M under a plan"
	@echo "make check     set up, build, and run every test"
	@echo "make bench     kernel and end-to-end benchmarks; results in $(BUILD)/bench"
	@echo "make build     set up and build"
	@echo "make setup     install what is missing: system packages, $(BUILD)/venv"
	@echo "make doc       reference of dialects, passes and C headers in $(BUILD)/docs"
	@echo "make format    clang-format and ruff over the sources"
	@echo "make coverage  line coverage of the hand-written C++ (a build of its own)"
	@echo "make fuzz      each fuzz target for FUZZ_SECONDS (60), a build of its own"
	@echo "make wheel     one wheel that needs no LLVM where it is installed; in $(BUILD)/dist"
	@echo "make clean     remove what was built; keeps $(BUILD)/venv"

setup:
	@tools/setup.sh

$(BUILD)/build.ninja: | setup
	cmake --preset default

build: setup $(BUILD)/build.ninja
	cmake --build $(BUILD)

demo: build
	$(PYTHON) examples/04-hf-smollm2/demo.py

check: build
	$(PYTHON) tools/run_checks.py --jobs $(JOBS)

bench: build
	$(PYTHON) test/bench/bench.py --output $(BUILD)/bench
	$(PYTHON) test/bench/plan_solver.py --output $(BUILD)/bench

doc: setup $(BUILD)/build.ninja
	cmake --build $(BUILD) --target moa-doc

format: setup
	git ls-files '*.h' '*.hpp' '*.c' '*.cpp' | grep -v /Inputs/ | xargs clang-format-22 -i
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

coverage: setup
	tools/coverage.sh

fuzz: setup
	$(PYTHON) tools/fuzz.py --jobs $(JOBS)

# WHEEL_PYTHON: 3.11 makes a wheel for 3.11 alone, 3.12 and newer one for all from
# 3.12 on. Both can lie in $(BUILD)/dist.
WHEEL_PYTHON ?= $(PYTHON)
WHEEL_NEW := $(BUILD)/dist/new
wheel: export PATH := $(abspath $(BUILD)/venv/bin):$(PATH)
wheel: setup
	rm -rf $(WHEEL_NEW)
	$(WHEEL_PYTHON) -m pip wheel . --no-deps --disable-pip-version-check -q -w $(WHEEL_NEW)/built
	$(PYTHON) -m auditwheel repair --plat auto -w $(WHEEL_NEW) $(WHEEL_NEW)/built/*.whl
	$(PYTHON) -m auditwheel show $(WHEEL_NEW)/*.whl
	$(WHEEL_PYTHON) tools/check_wheel.py $(WHEEL_NEW)/*.whl $$($(WHEEL_PYTHON) -c 'import \
	  importlib.util as u; t = u.find_spec("torch"); print(t and t.origin.rsplit("/", 2)[0] or "")')
	mv $(WHEEL_NEW)/*.whl $(BUILD)/dist
	rm -rf $(WHEEL_NEW)

clean:
	find $(BUILD) -mindepth 1 -maxdepth 1 ! -name venv -exec rm -rf {} + 2>/dev/null || true
