#!/usr/bin/env bash
# Makes sure a command is there: uses the one on PATH, else installs the Debian
# packages that bring it, when that is possible (root and apt-get).
#
# usage: install-debian.sh COMMAND PACKAGE...
# exit:  0 the command is on PATH; 1 it is not, and stderr says why
set -euo pipefail

if (($# < 2)); then
  echo "usage: $0 COMMAND PACKAGE..." >&2
  exit 1
fi
command=$1
shift
packages=("$@")

# "command -v" alone is also content with a file that cannot be executed.
found() { [[ -x $(command -v "$command") ]]; }

if found; then
  exit 0
fi
if ((EUID != 0)); then
  echo "$command is not on PATH, and only root may install it. Install it (Debian: apt-get install ${packages[*]}) and try again." >&2
  exit 1
fi
if ! command -v apt-get >/dev/null; then
  echo "$command is not on PATH, and there is no apt-get to install it with. Install it and try again." >&2
  exit 1
fi

# Debian starts a server as soon as it is installed. The tests start their own
# on ports of their own, so nothing else may be left running: a policy-rc.d
# that says 101 ("not allowed") is Debian's way to ask for that.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

echo "installing ${packages[*]} for $command" >&2
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install --yes --no-install-recommends "${packages[@]}"; } >"$log" 2>&1 </dev/null; then
  tail -n 20 "$log" >&2
  rm -f "$log"
  echo "apt-get could not install ${packages[*]}; its last words are above." >&2
  exit 1
fi
rm -f "$log"

if ! found; then
  echo "${packages[*]}: installed, yet $command is not on PATH ($PATH)." >&2
  exit 1
fi
