// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"io/fs"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of a node. Gauges that are read from live state are registered by registerGauges.
type metrics struct {
	logWrite     prometheus.Histogram
	logErrors    prometheus.Counter
	logBytes     prometheus.Counter
	logHeals     prometheus.Counter
	fatal        prometheus.Counter
	snapshots    *prometheus.CounterVec
	snapshotTime prometheus.Histogram
	installs     prometheus.Counter

	snapshotSent    prometheus.Counter
	catchUps        *prometheus.CounterVec
	catchUpFailures prometheus.Counter
	catchUpFetched  prometheus.Counter
	importFetched   prometheus.Counter
	importWaiting   prometheus.Gauge
	catchUpKept     prometheus.Counter
	catchUpTime     prometheus.Histogram

	proposals     *prometheus.CounterVec
	retries       prometheus.Counter
	proposeTime   prometheus.Histogram
	inflight      prometheus.Gauge
	forwarding    prometheus.Gauge
	readRounds    *prometheus.CounterVec
	readTime      prometheus.Histogram
	leaderChanges prometheus.Counter
	transfers     *prometheus.CounterVec
	foreign       prometheus.Counter
	idConflicts   prometheus.Counter
	joinFailures  prometheus.Counter
	dutyFailures  *prometheus.CounterVec
	refusedConns  *prometheus.CounterVec
	heals         *prometheus.CounterVec
	digests       *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		logWrite: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "deucalion_raft_log_write_duration_seconds",
			Help:    "Time of one durable write to the Raft log.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 14),
		}),
		logErrors: counter("deucalion_raft_log_errors_total", "Failed or overdue operations of the Raft log and vote stores; each is fatal."),
		logBytes:  counter("deucalion_raft_log_written_bytes_total", "Payload bytes written to the Raft log."),
		logHeals:  counter("deucalion_raft_log_heals_total", "Sealed log tails that were repaired."),
		fatal:     counter("deucalion_cluster_fatal_errors_total", "Errors after which the process must exit."),
		snapshots: vec("deucalion_raft_snapshots_total", "Raft snapshots attempted on this node, by result.", "result"),
		snapshotTime: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "deucalion_raft_snapshot_duration_seconds",
			Help:    "Time to make one Raft snapshot.",
			Buckets: prometheus.ExponentialBuckets(0.01, 3, 10),
		}),
		installs: counter("deucalion_raft_snapshot_installs_total", "Snapshots of other nodes that this node has installed. A steady rate is raft#697: wipe the node and let it join again."),

		snapshotSent:    counter("deucalion_raft_snapshot_sent_bytes_total", "Bytes of snapshots' files sent to nodes that are too far behind for the log."),
		catchUps:        vec("deucalion_raft_catchup_completed_total", "Catch-ups by another node's snapshot that have ended, by result: ok, dropped, disk_full (there is too little room for what is missing here).", "result"),
		catchUpFailures: counter("deucalion_raft_catchup_failures_total", "Attempts to fetch another node's snapshot that failed and were repeated or given up."),
		importFetched:   counter("deucalion_raft_import_fetched_bytes_total", "Bytes of imported blocks fetched from other nodes."),
		importWaiting: f.NewGauge(prometheus.GaugeOpts{
			Name: "deucalion_raft_import_waiting", Help: "1 while this node applies nothing because the blocks of an import, or room for its index, are not here.",
		}),
		catchUpFetched: counter("deucalion_raft_catchup_fetched_bytes_total", "Bytes fetched from other nodes' snapshots."),
		catchUpKept:    counter("deucalion_raft_catchup_kept_bytes_total", "Bytes of this node's blocks that catch-ups did not have to fetch."),
		catchUpTime: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "deucalion_raft_catchup_seconds",
			Help:    "Time from the offer of a snapshot until all of it was here.",
			Buckets: prometheus.ExponentialBuckets(0.1, 4, 9),
		}),
		proposals: vec("deucalion_cluster_proposals_total", "Proposals finished on this node, by result.", "result"),
		retries:   counter("deucalion_cluster_proposal_retries_total", "Attempts of proposals that were repeated (elections, lost connections)."),
		proposeTime: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "deucalion_cluster_proposal_duration_seconds",
			Help:    "Time of one proposal on this node, from its admission to the answer, failed ones included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		inflight:   f.NewGauge(prometheus.GaugeOpts{Name: "deucalion_cluster_proposal_inflight_bytes", Help: "Bytes of entries being proposed on this node."}),
		forwarding: f.NewGauge(prometheus.GaugeOpts{Name: "deucalion_cluster_forwarding_proposals", Help: "Proposals that this node has sent to the leader and that are not answered yet."}),
		readRounds: vec("deucalion_cluster_read_index_rounds_total", "Read-index rounds of this node, by result; many reads share one.", "result"),
		readTime: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "deucalion_cluster_read_index_duration_seconds",
			Help:    "Time in which one linearizable read got its index, retries and failures included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		leaderChanges: counter("deucalion_cluster_leader_changes_total", "Leader changes seen by this node."),
		transfers:     vec("deucalion_cluster_leadership_transfers_total", "Leadership transfers started on this node, by result.", "result"),
		foreign:       counter("deucalion_gossip_foreign_members_refused_total", "Gossip messages about members of another cluster."),
		idConflicts:   counter("deucalion_gossip_node_id_conflicts_total", "Times two live nodes were found to use one node id."),
		joinFailures:  counter("deucalion_gossip_join_failures_total", "Attempts to reach a gossip peer that failed."),
		dutyFailures:  vec("deucalion_cluster_duty_failures_total", "Failures of the leader's background duties.", "duty"),
		heals:         vec("deucalion_cluster_heals_total", "Damaged parts of the Raft state that this start has set aside, to be got back from the other nodes: log, stable (term and vote), snapshot (also by an older one and the log).", "what"),
		refusedConns:  vec("deucalion_cluster_connections_refused_total", "Incoming cluster connections closed before use, by reason.", "reason"),
		digests:       vec("deucalion_cluster_digests_total", "Comparisons of the members' data that this node has asked for, by result: equal, mismatch, error (a member cannot read its data), incomplete.", "result"),
	}
	// An alert on a rate needs the zero before the first failure.
	for _, v := range []*prometheus.CounterVec{m.snapshots, m.readRounds, m.transfers} {
		v.WithLabelValues("ok")
		v.WithLabelValues("error")
	}
	for _, err := range []error{nil, ErrOverloaded, ErrNoLeader, ErrStopped} {
		m.proposals.WithLabelValues(proposeResult(err))
	}
	for _, part := range []string{partLog, partStable, partSnapshot} {
		m.heals.WithLabelValues(part)
	}
	for _, result := range []string{DigestEqual, DigestMismatch, DigestError, DigestIncomplete} {
		m.digests.WithLabelValues(result)
	}
	for _, result := range []string{"ok", "dropped", "disk_full"} {
		m.catchUps.WithLabelValues(result)
	}
	for _, duty := range []string{"settings", "retention", "membership", "digest"} {
		m.dutyFailures.WithLabelValues(duty)
	}
	for _, reason := range []string{"crowded", "preamble"} {
		m.refusedConns.WithLabelValues(reason)
	}
	return m
}

// registerGauges exports the live state of n.
func (n *Node) registerGauges(reg prometheus.Registerer) {
	f := promauto.With(reg)
	gauge := func(name, help string, fn func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, fn)
	}
	yes := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	gauge("deucalion_raft_is_leader", "1 on the leader.", func() float64 { return yes(n.isLeader()) })
	gauge("deucalion_raft_has_leader", "1 if this node knows a leader.", func() float64 { _, ok := n.Leader(); return yes(ok) })
	gauge("deucalion_raft_term", "Current Raft term.", func() float64 { return float64(n.raft.CurrentTerm()) })
	gauge("deucalion_raft_commit_index", "Commit index that this node knows.", func() float64 { return float64(n.raft.CommitIndex()) })
	gauge("deucalion_raft_applied_index", "Index that the state machine has applied.", func() float64 { i, _ := n.fsm.Applied(); return float64(i) })
	gauge("deucalion_raft_first_log_index", "First index in this node's log. A follower that has applied less than what is before it needs a snapshot.", func() float64 {
		i, err := n.stores.log.FirstIndex()
		if err != nil {
			return 0 // the log tells of its errors itself
		}
		return float64(i)
	})
	gauge("deucalion_raft_last_log_index", "Last index in this node's log.", func() float64 { return float64(n.raft.LastIndex()) })
	gauge("deucalion_raft_log_size_bytes", "Bytes of the files of the Raft log and of the store of term and vote.", func() float64 { return float64(sizeOf(filepath.Join(n.cfg.Dir, "raft"))) })
	gauge("deucalion_raft_snapshot_index", "Index of the newest Raft snapshot; what the log holds above it is replayed after a crash.", func() float64 { i, _ := n.snapshots.newest(); return float64(i) })
	gauge("deucalion_cluster_proposal_inflight_limit_bytes", "Bound of deucalion_cluster_proposal_inflight_bytes; beyond it writes are answered with 503.", func() float64 { return float64(n.cfg.MaxInFlightBytes) })
	gauge("deucalion_raft_voters", "Voters in the configuration.", func() float64 { return float64(len(voters(n.servers()))) })
	gauge("deucalion_raft_voters_heard", "Voters that have answered within a second, this node included; without a majority it is not ready.", func() float64 { heard, _ := n.votersHeard(); return float64(heard) })
	gauge("deucalion_cluster_staleness_seconds", "How far this node may be behind the leader; +Inf when unknown.", func() float64 { return n.fresh.seconds() })
	gauge("deucalion_cluster_digest_mismatch", "1 while the newest comparison of some time range, or of the tables, found members that differ or cannot read their data.", func() float64 { return yes(n.verdicts.mismatch()) })
	gauge("deucalion_cluster_fsm_failed", "1 when a broken invariant stopped this node's state machine.", func() float64 { return yes(n.fsmFailed()) })
	gauge("deucalion_cluster_recovering", "1 while this node has no vote, having lost its log or its vote.", func() float64 { return yes(n.amnesia.active()) })
	gauge("deucalion_storage_free_bytes", "Room on the disk of the data directory; 0 when it is not watched.", func() float64 { return float64(n.disk.free.Load()) })
	gauge("deucalion_storage_disk_low", "1 when the disk is nearly full, 2 when this node takes no more entries.", func() float64 { return float64(n.disk.level()) })
	gauge("deucalion_cluster_clock_offset_seconds", "How far this node's clock is ahead of the time that the nodes agree on; above 10 s either way it is not ready.", func() float64 { return n.clock.offset().Seconds() })
	gauge("deucalion_gossip_members", "Live members that gossip knows, this node included.", func() float64 { return float64(len(n.gossip.members())) })
	gauge("deucalion_raft_catchup_active", "1 while this node fetches, or is about to install, another node's snapshot.", func() float64 { return yes(n.catchUp.status() != nil) })
	gauge("deucalion_raft_catchup_missing_bytes", "Bytes of another node's snapshot that are still to come.", func() float64 { return float64(n.catchUp.missing()) })
	gauge("deucalion_raft_snapshot_age_seconds", "Age of the newest Raft snapshot; 0 when there is none.", func() float64 {
		t := n.snapshots.newestTime()
		if t.IsZero() {
			return 0
		}
		return time.Since(t).Seconds()
	})
}

// sizeOf adds up the files below dir. What is deleted meanwhile counts nothing.
func sizeOf(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}
