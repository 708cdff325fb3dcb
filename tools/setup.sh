#!/usr/bin/env bash
# Installs what a checkout needs and lacks: Debian/Ubuntu packages, and a private
# Python environment in build/venv. A second run finds its stamp and does nothing.
#
#   tools/setup.sh            install what is missing
#   tools/setup.sh --check    print what is missing; exit 1 if anything is
#
# Environment:
#   MOA_PYTHON        interpreter for the venv (default: first of python3.11..3.14)
#   MOA_SKIP_SYSTEM=1 leave system packages alone: you provide them
#   PIP_*             as pip takes them. On PyPI, torch for Linux is the CUDA build
#                     (several GB); for the CPU build set
#                     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/build/venv
stamp=$venv/.moa-setup
locked=$root/tools/requirements.txt
bare=$root/tools/requirements-no-deps.txt
oldest=$root/tools/requirements-oldest.txt

packages=(
  llvm-22-dev libmlir-22-dev mlir-22-tools llvm-22-tools clang-22 lld-22
  libclang-rt-22-dev clang-format-22 libzstd-dev zlib1g-dev
  nlohmann-json3-dev libgtest-dev
  ccache cmake ninja-build git ca-certificates
  python3 python3-venv python3-dev
)

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: error: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf 'setup: note: %s\n' "$line" >&2; done
  exit 1
}

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

check_only=no
case "${1-}" in
  '') ;;
  --check) check_only=yes ;;
  -h | --help) usage; exit 0 ;;
  *) fail "expected no argument, --check or --help, found '$1'" ;;
esac

# System packages that dpkg does not report as installed, one a line.
missing_packages() {
  local installed
  installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' \
    "${packages[@]}" 2>/dev/null | awk '$2 == "installed" {print $1}' || true)
  printf '%s\n' "${packages[@]}" | grep -vxF -f <(printf '%s\n' "$installed") || true
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "expected to be root or to have sudo, to run: $*"
  fi
}

install_packages() { # names
  say "installing ${#} packages with apt-get: $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q ||
    fail "apt-get update failed (its reason stands above)"
  local codename absent=()
  for package in "$@"; do
    [ -n "$(apt-cache madison "$package" 2>/dev/null)" ] || absent+=("$package")
  done
  if [ ${#absent[@]} -ne 0 ]; then
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
    fail "expected these packages in the configured apt sources, found none: ${absent[*]}" \
      "Debian 12 has LLVM 22 in its suite bookworm-security" \
      "elsewhere: wget -qO- https://apt.llvm.org/llvm-snapshot.gpg.key | sudo tee /etc/apt/trusted.gpg.d/apt.llvm.org.asc" \
      "and: echo 'deb http://apt.llvm.org/$codename/ llvm-toolchain-$codename-22 main' | sudo tee /etc/apt/sources.list.d/llvm-22.list"
  fi
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "$@" ||
    fail "apt-get install failed (its reason stands above)"
}

system_packages() {
  [ "${MOA_SKIP_SYSTEM-0}" != 1 ] || return 0
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    fail "expected Debian or Ubuntu (dpkg and apt-get), found another system" \
      "install the counterparts of: ${packages[*]}" \
      "then set MOA_SKIP_SYSTEM=1 and run this again"
  fi
  local missing
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} -ne 0 ] || return 0
  if [ "$check_only" = yes ]; then
    say "missing packages: ${missing[*]}"
    incomplete=yes
  else
    install_packages "${missing[@]}"
  fi
}

# The interpreter for the venv: 3.11 or newer, with ensurepip and headers.
find_python() {
  local probe='import ensurepip, os, sys, sysconfig
sys.exit(not ((3, 11) <= sys.version_info < (3, 15) and os.path.exists(
    os.path.join(sysconfig.get_path("include"), "Python.h"))))'
  local name
  for name in ${MOA_PYTHON-} python3 python3.11 python3.12 python3.13 \
    python3.14 /usr/bin/python3; do
    if command -v "$name" >/dev/null && "$name" -c "$probe" 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  fail "expected Python 3.11 to 3.14 with venv and Python.h, found none" \
    "set MOA_PYTHON to such an interpreter"
}

wanted_stamp() { cat "$locked" "$bare" "$oldest" | sha256sum | cut -d' ' -f1; }

python_packages() {
  if [ "$(cat "$stamp" 2>/dev/null)" = "$(wanted_stamp)" ] &&
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -c ''; then
    return
  fi
  if [ -L "$venv" ]; then
    say "build/venv is a link to $(readlink -f "$venv"): yours, left as it is"
    return
  fi
  if [ "$check_only" = yes ]; then
    say "missing: build/venv with the packages of tools/requirements.txt"
    incomplete=yes
    return
  fi
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    local python
    python=$(find_python)
    say "creating build/venv with $python"
    rm -rf "$venv"
    mkdir -p "$root/build"
    "$python" -m venv "$venv" || fail "$python -m venv failed"
  fi
  say "installing Python packages into build/venv (torch alone is about 200 MB)"
  local pip=("$venv/bin/python" -m pip install --disable-pip-version-check)
  [ -t 1 ] || pip+=(-q)
  "${pip[@]}" -r "$locked" ||
    fail "pip could not install tools/requirements.txt (its reason stands above)"
  "${pip[@]}" --no-deps -r "$bare" ||
    fail "pip could not install tools/requirements-no-deps.txt"
  rm -rf "$venv/oldest"
  "${pip[@]}" --no-deps --target "$venv/oldest" -r "$oldest" ||
    fail "pip could not install tools/requirements-oldest.txt"
  # The package as built in this checkout is importable: `import moa`.
  local site
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  printf '%s\n' "$root/build/python" >"$site/moa-checkout.pth"
  console_scripts
  wanted_stamp >"$stamp"
  say "build/venv is ready"
}

# The commands of pyproject.toml that are Python, in the venv's bin: moa-plan.
console_scripts() {
  "$venv/bin/python" - "$root/pyproject.toml" "$venv/bin" <<'PYTHON'
import pathlib, sys, tomllib

project = tomllib.loads(pathlib.Path(sys.argv[1]).read_text())["project"]
for name, target in project["scripts"].items():
    module, function = target.split(":")
    if name not in ("moa-compile", "moa-run"):  # Those are built.
        path = pathlib.Path(sys.argv[2], name)
        path.write_text(
            f"#!{sys.executable}\nimport sys\n\nfrom {module} import {function}\n\n"
            f"sys.exit({function}())\n"
        )
        path.chmod(0o755)
PYTHON
}

incomplete=no
system_packages
python_packages
[ "$incomplete" = no ]
