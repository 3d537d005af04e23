#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# debian-install.sh PROGRAM[=PACKAGE]...: installs Debian's packages of the programs that are missing. Only the programs
# are wanted: no package may start a service.
set -euo pipefail

missing=()
for want in "$@"; do
  command -v "${want%%=*}" >/dev/null || missing+=("${want#*=}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "installing ${missing[*]}"
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
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
