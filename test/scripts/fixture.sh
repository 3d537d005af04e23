#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# fixture.sh VERSION: keeps what this tree leaves behind in test/upgrade/testdata/VERSION.tar.gz and VERSION.json: the
# data directory of one node, with a snapshot and a log tail after a kill -9, and what it answered before. Both hold all
# kinds of entries that bring data: writes, deletes, imports, positions of a remote store. To be run once for every
# release, on the commit that is released, and for a new level of the log format; what is there is not replaced.
set -euo pipefail

version=$1
cd "$(dirname "$0")/../.."
target=test/upgrade/testdata/$version
if [ -e "$target.tar.gz" ]; then
  echo "$target.tar.gz is there already" >&2
  exit 1
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
DEUCALION_FIXTURE=$out go test -timeout 10m -count 1 -run '^TestMakeFixture$' ./test/upgrade
# Log files are allocated in advance and nearly empty.
tar --create --sparse --hole-detection=raw --sort=name --owner=0 --group=0 --numeric-owner -C "$out/data" . |
  gzip -9 -n >"$target.tar.gz"
cp "$out/answers.json" "$target.json"
ls -l "$target".*
