#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# Installs Debian's prometheus, promtool, node exporter and Alertmanager when they are missing. Their services are not
# wanted, only the programs, so packages may not start anything.
set -euo pipefail

missing=()
for program in prometheus promtool prometheus-node-exporter prometheus-alertmanager; do
  command -v "$program" >/dev/null || missing+=("$program")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing, for lack of ${missing[*]}"
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
  "${sudo[@]}" apt-get install -y -qq --no-install-recommends prometheus prometheus-node-exporter prometheus-alertmanager </dev/null
fi
# Not head: it would close the pipe while the other still writes, and pipefail would call that an error.
prometheus --version 2>&1 | sed -n 1p
prometheus-node-exporter --version 2>&1 | sed -n 1p
prometheus-alertmanager --version 2>&1 | sed -n 1p
