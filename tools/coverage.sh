#!/usr/bin/env bash
# Line coverage of the hand-written C++: builds the preset `coverage` in
# build-coverage, runs every test, prints coverage by folder, of each part and
# in total. With --runtime, of the runtime alone by its unit tests, in minutes:
# the preset `coverage-runtime` in build-coverage-runtime, which compiles plans
# with build/bin/moa-compile. Of the conformance table it runs a few cases on one
# chip: the others differ in kernels.
#
#   tools/coverage.sh [--runtime] [--min PERCENT]   exit 1 when the total is below
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

min=0
preset=coverage
while [[ $# -gt 0 ]]; do
  case "$1" in
    --runtime)
      preset=coverage-runtime
      shift ;;
    --min)
      min=${2:?"expected a percentage after --min"}
      shift 2 ;;
    *)
      echo "coverage: error: expected --runtime or --min PERCENT, found '$1'" >&2
      exit 2 ;;
  esac
done
if [[ $preset == coverage-runtime && ! -x build/bin/moa-compile ]]; then
  echo "coverage: error: expected build/bin/moa-compile, found none; run make build" >&2
  exit 2
fi

build=$PWD/build-${preset}
llvm=/usr/lib/llvm-22/bin
cmake --preset "$preset"
cmake --build "$build"

rm -rf "$build/profiles"
mkdir -p "$build/profiles"
# %m keeps one file for each program, merged in place over its runs.
export LLVM_PROFILE_FILE=$build/profiles/%m.profraw
if [[ $preset == coverage ]]; then
  build/venv/bin/python tools/run_checks.py --build "$build" \
    --only lit --only unit --only python
else
  test=(ctest --test-dir "$build" --output-on-failure -j "$(nproc)")
  "${test[@]}" -E '^Cpu/'
  "${test[@]}" -R '^Cpu/.*x86_64_v3_(Sinks|ShortWindows|Turns|RaggedBatch|Strides)'
fi
"$llvm/llvm-profdata" merge -sparse "$build"/profiles/*.profraw \
  -o "$build/coverage.profdata"

# Every program and library of ours, as further objects of one report.
objects=()
while IFS= read -r file; do objects+=(-object "$file"); done < <(
  find "$build/bin" "$build/lib" "$build/python" -type f \
    \( -perm -u+x -o -name '*.so*' \) 2>/dev/null | sort
)
"$llvm/llvm-cov" export "${objects[@]}" -summary-only \
  -instr-profile "$build/coverage.profdata" \
  -ignore-filename-regex '\.inc$|/test/|/build|/usr/|/venv/' \
  >"$build/coverage.json"
build/venv/bin/python tools/coverage_report.py "$build/coverage.json" --min "$min"
