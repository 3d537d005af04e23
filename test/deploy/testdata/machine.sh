#!/bin/bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# machine.sh DIR REPOSITORY: makes the mount namespace that it runs in a machine of its own. What is written to the
# directories below goes into DIR, and to nobody else.
set -euo pipefail
dir=$1
for path in /etc /usr/local "$2"; do
  name=${path//\//-}
  mkdir -p "$dir/upper$name" "$dir/work$name"
  mount -t overlay overlay -o "lowerdir=$path,upperdir=$dir/upper$name,workdir=$dir/work$name" "$path"
done
mkdir -p "$dir/state"
mount --bind "$dir/state" /var/lib
mount -t tmpfs tmpfs /run
echo up
while :; do sleep 1; done # bash buries the processes whose parents have gone
