#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# fuzz.sh TIME: runs every fuzz test of the module for TIME, one after the other.
set -euo pipefail

time=${1:-10s}
count=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# go test now and then ends a clean run with "context deadline exceeded", when a worker is busy at the moment in
# which the time is over (golang/go#75804). An input that fails is always written down, and that is how the two are
# told apart.
fuzz() { # PACKAGE NAME
  if go test -timeout 30m -run '^$' -fuzz "^$2\$" -fuzztime "$time" "$1" 2>&1 | tee "$out"; then
    return 0
  fi
  if grep -q 'Failing input written to' "$out" || ! grep -q '^ *context deadline exceeded$' "$out"; then
    return 1
  fi
  echo "no failing input: taken as passed"
}

while read -r package; do
  names=$(go test -timeout 5m -list '^Fuzz' "$package" | grep '^Fuzz' || true)
  for name in $names; do
    echo "== $package $name"
    fuzz "$package" "$name"
    count=$((count + 1))
  done
done < <(go list ./...)
echo "$count fuzz tests ran for $time each"
[ "$count" -gt 0 ]
