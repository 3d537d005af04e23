// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/alecthomas/kingpin/v2"
	"github.com/alecthomas/units"
)

// tuning are hidden flags: the defaults fit, and tests need freezes, snapshots and a short log within seconds. 0 is
// the default of the package that the value goes to.
type tuning struct {
	freezeSamples    int64
	snapshotEntries  int64
	snapshotLogBytes units.Base2Bytes
	trailingLogBytes units.Base2Bytes
	logSegmentBytes  units.Base2Bytes
}

func (t *tuning) flags(app *kingpin.Application) {
	app.Flag("storage.freeze-samples", "After how many samples a memtable is frozen. 0: 32 Mi.").
		Hidden().Default("0").Int64Var(&t.freezeSamples)
	app.Flag("raft.snapshot-entries", "After how many log entries a Raft snapshot is made. 0: 200000.").
		Hidden().Default("0").Int64Var(&t.snapshotEntries)
	app.Flag("raft.snapshot-log-bytes", "After how much log a Raft snapshot is made. 0: 64MB.").
		Hidden().Default("0B").BytesVar(&t.snapshotLogBytes)
	app.Flag("raft.trailing-log-bytes", "How much log stays behind a Raft snapshot. 0: 64MB.").
		Hidden().Default("0B").BytesVar(&t.trailingLogBytes)
	app.Flag("raft.log-segment-bytes", "Size of a segment of the Raft log. 0: 64MB.").
		Hidden().Default("0B").BytesVar(&t.logSegmentBytes)
}
