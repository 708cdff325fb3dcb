#!/usr/bin/env bash
# Runs moa-gpu-small, which launches every kernel on few tokens, under the tools of
# compute-sanitizer; exit 1 if one of them reports anything.
#
#   test/bench/gpu_sanitize.sh [ARTIFACTS [PROGRAM]]
#
# ARTIFACTS: folder of gpu_artifacts.py (default build/bench/artifacts); PROGRAM:
# default build/bin/moa-gpu-small. Environment: TOOLS, default "memcheck synccheck
# racecheck"; NAMES of artifacts; LIMIT, seconds of one run, default 60.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
artifacts=${1:-$root/build/bench/artifacts}
program=${2:-$root/build/bin/moa-gpu-small}

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

command -v compute-sanitizer >/dev/null ||
  fail "expected compute-sanitizer of a CUDA toolkit in PATH, found none"
[ -x "$program" ] || fail "expected the program $program; run: ninja -C build moa-gpu-small"
names=${NAMES:-replay replay_row replay_cap kv8_mixed kv8_mixed_row}
for name in $names; do
  [ -f "$artifacts/$name.moa" ] ||
    fail "expected $artifacts/$name.moa; run: test/bench/gpu_artifacts.py --output $artifacts"
done

log=$(mktemp)
trap 'rm -f "$log"' EXIT
bad=0
for tool in ${TOOLS:-memcheck synccheck racecheck}; do
  for name in $names; do
    begun=$SECONDS
    # memcheck's own checks of wgmma (2025.3) do not come back from a product in
    # a branch; those of synccheck do.
    options=()
    [ "$tool" = memcheck ] && options=(--check-warpgroup-mma no)
    timeout "${LIMIT:-60}" compute-sanitizer --tool "$tool" "${options[@]}" \
      --error-exitcode 99 --print-limit 10 "$program" "$artifacts/$name.moa" >"$log" 2>&1
    code=$?
    summary=$(grep -E 'SUMMARY|^error' "$log" | tail -2 | tr '\n' ' ')
    if [ $code -eq 0 ]; then
      printf '%s %s: clean, %d s; %s\n' "$tool" "$name" $((SECONDS - begun)) "$summary"
      continue
    fi
    bad=1
    why="exit code $code"
    [ $code -eq 124 ] && why="not done after ${LIMIT:-60} s"
    printf '%s %s: %s, %d s; %s\n' "$tool" "$name" "$why" $((SECONDS - begun)) "$summary"
    head -60 "$log"
  done
done
exit $bad
