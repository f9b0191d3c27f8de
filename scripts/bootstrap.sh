#!/usr/bin/env bash
# The virtual environment at .venv with Mayfly in it; `bootstrap.sh dev` adds what the tests need.
# Runs on a bare machine, continues where it was interrupted, and takes no time when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."
extra=${1:-}
wanted=$(cat pyproject.toml constraints.txt scripts/bootstrap.sh | sha256sum | cut -c1-16)
mark=.venv/.mayfly${extra:+-$extra}
[ "$(cat "$mark" 2>/dev/null || true)" = "$wanted" ] && exit 0

started=$(date +%s)
say() { printf '%s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else return 1; fi
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"; }

# apt itself waits for the lock of installations only, not for that of updates
apt_update() {
  local tries=0 words
  until words=$(LC_ALL=C apt update 2>&1); do
    if [[ $words != *"Could not get lock"* ]] || [ $((tries += 1)) -gt 100 ]; then printf '%s\n' "$words"; return 1; fi
    sleep 3
  done
}

usable() { "$1" -c 'import ensurepip, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  for name in python3 python3.13 python3.12 python3.11 python3.14; do
    if command -v "$name" >/dev/null && usable "$name"; then echo "$name"; return; fi
  done
  return 1
}

if ! python=$(find_python); then
  say "  ...  Python: installing Debian's python3 and python3-venv"
  if ! command -v apt-get >/dev/null ||
     ! { apt_update && apt install -y python3 python3-venv; } >&2; then
    say "Mayfly needs Python 3.11 or newer with its venv module, and it could not be installed: do that, then try again."
    exit 1
  fi
  python=$(find_python) || { say "Mayfly needs Python 3.11 or newer; this system has $(python3 --version 2>&1 || echo none)."; exit 1; }
fi

[ -x .venv/bin/python ] && usable .venv/bin/python || "$python" -m venv --clear .venv
log=.venv/install.log
if ! .venv/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt -e ".${extra:+[$extra]}" >"$log" 2>&1; then
  if why=$(grep -ohE 'Name or service not known|Temporary failure in name resolution|Cannot connect to proxy|Connection refused|Network is unreachable|No route to host|timed out' "$log" | tail -n 1) && [ -n "$why" ]; then
    say "The Python packages could not be downloaded: $why. See to the network or the proxy, then run the same command again (pip's log: $log)."
  else
    tail -n 15 "$log" >&2
    say "Installing the Python packages failed (see above; the whole log is in $log). Run the same command again to continue."
  fi
  exit 1
fi
echo "$wanted" >"$mark"
say "  ok  Virtual environment  $(($(date +%s) - started)) s"
