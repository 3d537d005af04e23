#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# Installs Debian's HAProxy when it is missing. Only the program is wanted: its service may not start.
set -euo pipefail

if ! command -v haproxy >/dev/null; then
  echo "installing haproxy"
  sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    # "exit 101" is how invoke-rc.d is told that no service may be started here.
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
    "${sudo[@]}" chmod 755 "$policy"
    trap '"${sudo[@]}" rm -f "$policy"' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  "${sudo[@]}" apt-get update -qq </dev/null
  "${sudo[@]}" apt-get install -y -qq --no-install-recommends haproxy </dev/null
fi
# Not head: it would close the pipe while the other still writes, and pipefail would call that an error.
haproxy -v | sed -n 1p
