#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# Runs, as root, the tests that skip for anybody else: those that make network namespaces or mount file systems. One that
# skips here is a failure.
set -euo pipefail
cd "$(dirname "$0")/../.."

tests='TestDeleteWaitsForRoom|TestFreezeWaitsForRoom|TestImportWaitsForRoom|TestLateSamplesWaitForRoom|TestSamplesFarBehindWaitForRoom|TestReleaseOnFullDisk|TestCheckRoom'
tests+='|TestOpenSnapshotsDropsWhatFillsTheDisk|TestCatchUpOnADiskThatIsFull|TestImportMarkWaitsForRoom'
tests+='|TestOneFullDisk|TestAllDisksFull|TestBalancerCut|TestThreeMachines|TestImportGuide|TestPeers|TestUnplug'
out=$(mktemp)
trap 'rm -f "$out"' EXIT
"${GO:-go}" test -timeout 25m -count 1 -p 1 -v -run "^($tests)\$" ./storage ./fsm ./cluster ./test/compose ./test/damage ./test/deploy ./test/fault ./test/netns | tee "$out"
for name in ${tests//|/ }; do
  if ! grep -- "^--- PASS: $name " "$out" >/dev/null; then
    echo "$name has not run" >&2
    exit 1
  fi
done
