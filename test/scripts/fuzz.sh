#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# fuzz.sh TIME: runs every fuzz test of the module for TIME, one after the other.
set -euo pipefail

time=${1:-10s}
count=0
while read -r package; do
  names=$(go test -timeout 5m -list '^Fuzz' "$package" | grep '^Fuzz' || true)
  for name in $names; do
    echo "== $package $name"
    go test -timeout 30m -run '^$' -fuzz "^$name\$" -fuzztime "$time" "$package"
    count=$((count + 1))
  done
done < <(go list ./...)
echo "$count fuzz tests ran for $time each"
[ "$count" -gt 0 ]
