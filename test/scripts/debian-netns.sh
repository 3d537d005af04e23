#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# Installs what tests on network namespaces need when it is missing: iproute2, iptables, nsenter and strace.
set -euo pipefail

missing=()
while read -r program package; do
  command -v "$program" >/dev/null || missing+=("$package")
done <<'END'
ip iproute2
iptables iptables
nsenter util-linux
strace strace
END
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}"
  sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  export DEBIAN_FRONTEND=noninteractive
  "${sudo[@]}" apt-get update -qq </dev/null
  "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
fi
iptables --version
strace --version | sed -n 1p
