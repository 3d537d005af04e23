// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build plants

package plant

import (
	"fmt"
	"os"
	"slices"
)

var chosen = os.Getenv("DEUCALION_PLANT")

// The defects; off.go describes them.
var (
	AckBeforeCommit     = chosen == "ack-before-commit"
	StaleLinearizable   = chosen == "stale-linearizable"
	IgnoreStaleness     = chosen == "ignore-staleness"
	UnconfirmedLeader   = chosen == "unconfirmed-leader"
	PublishEarly        = chosen == "publish-early"
	HeartbeatFastPath   = chosen == "heartbeat-fast-path"
	SkipLogFsync        = chosen == "skip-log-fsync"
	ApplyTwice          = chosen == "apply-twice"
	LoseDeleteAtFlush   = chosen == "lose-delete-at-flush"
	LoseDeleteAtMerge   = chosen == "lose-delete-at-merge"
	ForgetOutOfOrder    = chosen == "forget-out-of-order"
	StaleSeriesRef      = chosen == "stale-series-ref"
	IgnoreChecksum      = chosen == "ignore-checksum"
	RestoreKeepsTables  = chosen == "restore-keeps-tables"
	ForgetMissedDeletes = chosen == "forget-missed-deletes"
	VoteWithoutMemory   = chosen == "vote-without-memory"
	BlindDigest         = chosen == "blind-digest"
	IgnoreLogChecksum   = chosen == "ignore-log-checksum"
)

func init() {
	any := []bool{
		AckBeforeCommit, StaleLinearizable, UnconfirmedLeader, PublishEarly, HeartbeatFastPath, SkipLogFsync, ApplyTwice,
		LoseDeleteAtFlush, LoseDeleteAtMerge, ForgetOutOfOrder, StaleSeriesRef, IgnoreChecksum, RestoreKeepsTables,
		ForgetMissedDeletes, VoteWithoutMemory, BlindDigest, IgnoreLogChecksum, IgnoreStaleness,
	}
	if chosen != "" && !slices.Contains(any, true) {
		fmt.Fprintf(os.Stderr, "DEUCALION_PLANT: no defect %q\n", chosen)
		os.Exit(2)
	}
}
