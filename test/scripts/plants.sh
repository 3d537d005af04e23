#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# plants.sh [DEFECT...]: switches on the planted defects of internal/plant one after the other and runs for each the
# suite that must find it. Every suite is run once without a defect first and must be green. A defect that stays
# green, or that only hangs, fails the run: a test is missing. The fault suite needs root and what debian-netns.sh and
# debian-haproxy.sh install; it is left out, and that is said, where any of it is missing.
set -uo pipefail
cd "$(dirname "$0")/../.."

# The fault suite: a leader and followers are cut off for nearly 5 s each, which the seed gives.
faults='DEUCALION_FAULT_ONLY=^node.cut.off,DEUCALION_FAULT_SEED=3111,DEUCALION_FAULT_FAULTS=4,DEUCALION_FAULT_SECONDS=100,DEUCALION_FAULT_NET=99'

# defect, package, tests, environment of the suite (by commas)
plants="
ack-before-commit     cluster     TestLeaderWithoutMajority       -
unconfirmed-leader    cluster     TestLeaderWithoutMajority       -
publish-early         cluster     TestIndexIsPublishedAfterItsEntries -
stale-linearizable    cluster     TestReadIndexSeesEarlierWrites  -
heartbeat-fast-path   cluster     TestTransportHasNoHeartbeatFastPath -
skip-log-fsync        cluster     TestPowerLoss                   -
apply-twice           cluster     TestReplayBeginsAtTheSnapshot   -
lose-delete-at-flush  storage     TestDeleteRacesFlush            -
lose-delete-at-merge  storage     TestDeleteRacesMerge            -
forget-out-of-order   fsm         TestTwin                        DEUCALION_TWIN_RUNS=3
restore-keeps-tables  fsm         TestTwin                        DEUCALION_TWIN_RUNS=3
stale-series-ref      storage     TestStaleRef                    -
ignore-checksum       fsm         TestSnapshotDamage              -
ignore-log-checksum   cluster     TestEveryFlippedBitIsFound      -
forget-missed-deletes fsm         TestCatchUp                     -
vote-without-memory   cluster     TestAmnesiaWipedVoterDoesNotElect -
blind-digest          cluster     TestDigestFindsOneChangedValue  -
stale-linearizable    test/fault  TestNamespaces                  $faults
ignore-staleness      test/fault  TestNamespaces                  $faults
ack-before-commit     test/fault  TestNamespaces                  $faults
"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi
unset DEUCALION_PLANT

# suite DEFECT PACKAGE TESTS ENVIRONMENT: the defect may be "". The output goes to $work/out.
suite() {
  local bin=$work/${2//\//-}.test limit=120
  local flags=() env=("DEUCALION_PLANT=$1")
  [ "$4" = - ] || IFS=, read -ra env <<<"$4,DEUCALION_PLANT=$1"
  [ "$2" != fsm ] || flags=(-rapid.shrinktime=1s) # a small example is not what this is about
  [ "$2" != test/fault ] || limit=600             # a run of it takes a minute, and each wait in it has a limit of its own
  (cd "$2" && env "${env[@]}" DEUCALION_BIN="$work/deucalion" timeout --kill-after=5 $((limit + 30)) \
    "$bin" -test.run "^$3\$" -test.timeout "${limit}s" -test.v "${flags[@]}") >"$work/out" 2>&1
}

# can_fault tells whether the fault suite can run here.
can_fault() {
  local program
  [ "$(id -u)" -eq 0 ] || return
  for program in haproxy ip iptables nsenter; do
    command -v "$program" >/dev/null || return
  done
}

wanted() { [ "$#" -eq 1 ] || [[ " ${*:2} " == *" $1 "* ]]; }

chosen=$(while read -r defect rest; do
  if [ -n "$defect" ] && wanted "$defect" "$@"; then echo "$defect $rest"; fi
done <<<"$plants")
if [ -z "$chosen" ]; then
  echo "no such defect: $*" >&2
  exit 2
fi

if ! can_fault && grep -q ' test/fault ' <<<"$chosen"; then
  echo "not root, or without haproxy, iproute2 or iptables: the fault suite is left out"
  chosen=$(grep -v ' test/fault ' <<<"$chosen") || exit 0
fi

echo "building"
while read -r pkg; do
  go test -c -tags plants -o "$work/${pkg//\//-}.test" "./$pkg" || exit 1
done < <(awk '{print $2}' <<<"$chosen" | sort -u)
if grep -q ' test/' <<<"$chosen"; then
  go build -tags plants,faults,remove_all_sd -o "$work/deucalion" ./cmd/deucalion || exit 1
fi

failed=0
while read -r pkg tests env; do
  start=$SECONDS
  if suite "" "$pkg" "$tests" "$env"; then
    printf '%-22s %-11s %-36s green after %3d s\n' "-" "$pkg" "$tests" $((SECONDS - start))
  else
    printf '%-22s %-11s %-36s RED WITHOUT A DEFECT\n' "-" "$pkg" "$tests"
    cat "$work/out"
    failed=1
  fi
done < <(awk '{print $2, $3, $4}' <<<"$chosen" | sort -u)

while read -r defect pkg tests env; do
  start=$SECONDS
  if suite "$defect" "$pkg" "$tests" "$env"; then
    verdict="STAYS GREEN"
    failed=1
  elif grep -q '^--- FAIL: ' "$work/out"; then
    verdict=$(printf 'red after %3d s' $((SECONDS - start)))
  else
    verdict="NO VERDICT"
    tail -n 30 "$work/out"
    failed=1
  fi
  printf '%-22s %-11s %-36s %s\n' "$defect" "$pkg" "$tests" "$verdict"
  if [ -n "${VERBOSE:-}" ]; then grep -v '^time=' "$work/out" | grep -iE -m 8 'error|lost|differ|_test.go' ; fi
done <<<"$chosen"
exit $failed
