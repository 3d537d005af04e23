#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# Installs Debian's VictoriaMetrics (one node) when it is missing. Only the program is wanted: its service may not start.
set -euo pipefail

if ! command -v victoria-metrics >/dev/null; then
  echo "installing victoria-metrics"
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
  "${sudo[@]}" apt-get install -y -qq --no-install-recommends victoria-metrics </dev/null
fi
dpkg-query -W victoria-metrics
