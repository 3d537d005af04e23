// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/deucaliondb/deucalion/fsm"
)

// Names of the log stores, for Config.LogStore.
const (
	LogStoreWAL    = "wal"
	LogStoreBoltDB = "boltdb"
)

// MaxEntryBytes bounds one log entry. raft-wal refuses entries above 64 MiB; half of it leaves room for framing.
const MaxEntryBytes = 32 << 20

// Config of a node. Zero values mean the default named with the field.
type Config struct {
	// Dir is the data directory; the package owns <Dir>/raft and <Dir>/snapshots-raft.
	Dir string
	// NodeID is the name of this node in the Raft configuration, for ever. "" = the one kept in the data
	// directory, else a random one. Never derive it from an address: addresses change.
	NodeID string

	// ListenAddress takes Raft and node-to-node RPC, host:port; port 0 picks a free one.
	// AdvertiseAddress is what the other nodes dial; "" = the listening one, or for a wildcard a private address
	// of this machine. A host name is allowed and is resolved at each dial.
	ListenAddress, AdvertiseAddress string
	// GossipListenAddress (UDP and TCP) and GossipAdvertiseAddress likewise for memberlist.
	GossipListenAddress, GossipAdvertiseAddress string
	// Peers are gossip addresses (host:port); all addresses of a name are tried, again and again, for ever.
	Peers []string
	// BootstrapExpect is how many nodes form a new cluster (default 1). With 1 and no peers the node is a cluster
	// of its own at once; with 1 and peers it waits to be added to theirs. Ignored once the node has state.
	BootstrapExpect int

	// HTTPAddress and Version are told to the other nodes.
	HTTPAddress, Version string

	// LogStore is LogStoreWAL (default) or LogStoreBoltDB, for the life of the data directory.
	LogStore string
	// LogSegmentBytes is the segment size of the WAL (default 64 MiB). Space is given back in whole segments.
	LogSegmentBytes int
	// LogWriteTimeout bounds one write to the log or to the vote store (default 5 s). A disk that hangs longer
	// makes the node call OnFatal. Too low: a busy disk stops healthy nodes. Too high: a leader with a hung disk
	// holds up all writes that long, for its heartbeats go on (raft#503).
	LogWriteTimeout time.Duration

	// MinFree is how many bytes of the disk this node leaves alone (0: it does not look). With less it is not ready,
	// hands the leadership over and takes no appends; with less than half of it, no entries at all. It goes on by
	// itself when a tenth more is free. Too low: what a running flush or merge still writes fills the disk. At least two
	// segments of the WAL: the next one is allocated whole, and must fit until the node writes nothing more to its log.
	MinFree int64
	// RecoveryWait is how long a voter that has lost its log or its vote stays without a vote at least (default
	// 10 s): longer than a vote that it gave before may be on its way.
	RecoveryWait time.Duration

	// SnapshotLogBytes, SnapshotEntries and SnapshotAge each trigger a Raft snapshot: that much log since the last
	// one (default 64 MiB, 200,000 entries), or that long ago with something new since (default 30 min). Lower:
	// shorter replay after a crash, more freezes. A jitter of a quarter keeps the nodes from doing it together.
	SnapshotLogBytes, SnapshotEntries int64
	SnapshotAge                       time.Duration
	// TrailingLogBytes of log stay behind a snapshot for slow followers (default 64 MiB), by the mean entry size.
	TrailingLogBytes int64

	// UnshippedLogBytes bounds the log that is kept for remote stores which have not got it yet (default 1 GiB), by the
	// mean entry size. Lower: what they miss when they are away for long. Higher: room on the disk.
	UnshippedLogBytes int64

	// SnapshotMaxRate bounds the bytes a second of its snapshots that this node sends to nodes which are too far
	// behind for the log (default: no bound). Too low: such a node needs longer, and the log grows meanwhile. Too
	// high: the transfer takes disk and network from writes and queries.
	SnapshotMaxRate int64

	// MaxInFlightBytes bounds the entries being proposed on this node at once (default 64 MiB).
	MaxInFlightBytes int64
	// MaxStaleness: a node that has not been confirmed as fresh for longer is not ready (default 10 s).
	MaxStaleness time.Duration

	// Settings returns what the configuration file wants; the leader proposes it when it differs from the
	// replicated settings. ClusterID is kept, MinVersion never lowered. nil: the settings are left alone.
	Settings func() fsm.Settings
	// Retention returns how long samples are kept and how many bytes of blocks the largest node may have; 0 =
	// unlimited. They drive the cutoff. nil: both are unlimited.
	Retention func() (time.Duration, int64)

	// DigestInterval is how often the leader has all members compare hashes of their data (default 1 h, negative:
	// never). Lower: damage is found earlier; each digest reads two partitions and a day on every node.
	DigestInterval time.Duration

	// Now is the wall clock (default time.Now).
	Now func() time.Time

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// OnFatal is called at most once, on its own goroutine, when the process must exit: a failing or hung log
	// disk, or a Raft state that only a restart leaves. Required.
	OnFatal func(error)

	statfs func(dir string) (int64, error) // nil: the system's
	hooks  hooks
}

// withDefaults returns a checked copy.
func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("no data directory")
	}
	if c.OnFatal == nil {
		return c, errors.New("no OnFatal")
	}
	if c.BootstrapExpect < 0 {
		return c, fmt.Errorf("bootstrap-expect %d is negative", c.BootstrapExpect)
	}
	orString(&c.ListenAddress, "0.0.0.0:9190")
	orString(&c.GossipListenAddress, "0.0.0.0:9191")
	orString(&c.LogStore, LogStoreWAL)
	if c.LogStore != LogStoreWAL && c.LogStore != LogStoreBoltDB {
		return c, fmt.Errorf("unknown log store %q (want %s or %s)", c.LogStore, LogStoreWAL, LogStoreBoltDB)
	}
	or(&c.BootstrapExpect, 1)
	or(&c.LogSegmentBytes, 64<<20)
	or(&c.LogWriteTimeout, 5*time.Second)
	or(&c.RecoveryWait, 10*time.Second)
	or(&c.SnapshotLogBytes, 64<<20)
	or(&c.SnapshotEntries, 200_000)
	or(&c.SnapshotAge, 30*time.Minute)
	or(&c.TrailingLogBytes, 64<<20)
	or(&c.UnshippedLogBytes, 1<<30)
	or(&c.MaxInFlightBytes, 64<<20)
	or(&c.MaxStaleness, 10*time.Second)
	if c.DigestInterval == 0 {
		c.DigestInterval = time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if least := 2 * int64(c.LogSegmentBytes); c.LogStore == LogStoreWAL && c.MinFree > 0 && c.MinFree < least {
		c.Logger.Warn("More room is left on the disk than was asked for: two segments of the Raft log", "min_free", least, "asked", c.MinFree)
		c.MinFree = least
	}
	return c, nil
}

func or[T int | int64 | time.Duration](p *T, def T) {
	if *p <= 0 {
		*p = def
	}
}

func orString(p *string, def string) {
	if *p == "" {
		*p = def
	}
}
