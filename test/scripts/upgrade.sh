#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# upgrade.sh REF: builds the binary of an earlier commit, and upgrades a cluster of it to this tree, node by node under
# load.
set -euo pipefail

ref=$1
cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/src"
git archive --format=tar "$ref" | tar -x -C "$dir/src"
(cd "$dir/src" && go build -buildvcs=false -tags remove_all_sd -o "$dir/deucalion" ./cmd/deucalion)
DEUCALION_PREVIOUS_BIN=$dir/deucalion go test -timeout 20m -count 1 -v -run '^TestRollingUpgrade$' ./test/compose
