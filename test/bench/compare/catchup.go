// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/deucaliondb/deucalion/test/bench"
	"github.com/deucaliondb/deucalion/test/local"
)

// Metrics of nodes that a catch-up is judged by.
const (
	blocksBytesMetric   = "deucalion_storage_blocks_bytes"
	frozenMetric        = "deucalion_storage_frozen_memtables"
	fetchedMetric       = "deucalion_raft_catchup_fetched_bytes_total"
	keptMetric          = "deucalion_raft_catchup_kept_bytes_total"
	installsMetric      = "deucalion_raft_snapshot_installs_total"
	appliedMetric       = "deucalion_raft_applied_index"
	firstLogMetric      = "deucalion_raft_first_log_index"
	snapshotIndexMetric = "deucalion_raft_snapshot_index"
)

const (
	filledSpan = 6 * time.Hour // of data before the first fault
	missedSpan = time.Hour     // of data that the first node misses
	// sampleBytes is what a random value takes in a block, its share of the index included.
	sampleBytes = 8.2
	// defaultLog is what starts a snapshot, and what stays in the log behind it, unless the load is too small for that.
	defaultLog = 64 << 20
	// settleTimeout bounds each wait for the nodes to be done with something.
	settleTimeout = 30 * time.Minute
	settleEvery   = 100 * time.Millisecond
)

var (
	// errUnequal means that the nodes do not hold the same.
	errUnequal = errors.New("the nodes differ")
	// errByLog means that what was to be measured did not happen.
	errByLog = errors.New("it caught up by the log")
	errWait  = errors.New("not yet")
	errSmall = errors.New("the blocks do not get as large as they were asked to")
)

// CatchUpOptions say how catch-ups are measured.
type CatchUpOptions struct {
	Bin   string
	Dir   string        // of the data; left behind, for a look at what lies there
	Flags []string      // for each node, beyond those which the cluster needs
	Size  int64         // bytes of blocks of each node to begin with
	Load  bench.Options // how it is written; what is written follows from Size
	Out   io.Writer
}

// caughtUp is a row of the table.
type caughtUp struct {
	what                   string
	offered, fetched, kept int64
	ready, level           time.Duration
}

// CatchUp fills three nodes and measures what a follower fetches that missed an hour of data and the log of it, and
// what one fetches whose disk is empty.
func CatchUp(ctx context.Context, o CatchUpOptions) error {
	c, err := local.NewCluster(local.ClusterOptions{Bin: o.Bin, Dir: o.Dir, Flags: append(o.logFlags(), o.Flags...)})
	if err != nil {
		return err
	}
	defer c.Close()
	b := &catchUpBench{CatchUpOptions: o, cluster: c}
	if b.leader, err = startCluster(ctx, c); err != nil {
		return err
	}
	if err := b.fill(ctx); err != nil {
		return err
	}
	missed, err := b.missedAnHour(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", missed.what, err)
	}
	wiped, err := b.wiped(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", wiped.what, err)
	}
	printCaughtUp(o.Out, missed, wiped)
	return b.digest(ctx)
}

// logFlags keep the log so short that an hour of a small load does not fit into it. The load of the default size has
// the defaults.
func (o *CatchUpOptions) logFlags() []string {
	bytes := o.Size / 32
	if bytes >= defaultLog {
		return nil
	}
	return []string{
		fmt.Sprintf("--raft.snapshot-log-bytes=%dB", bytes), fmt.Sprintf("--raft.trailing-log-bytes=%dB", bytes),
		fmt.Sprintf("--raft.log-segment-bytes=%dB", max(bytes, 1<<20)),
	}
}

type catchUpBench struct {
	CatchUpOptions
	cluster *local.Cluster
	leader  *local.Server
	next    time.Time // timestamp of the next sample
}

// fill writes until the blocks of the leader have the size that was asked for.
func (b *catchUpBench) fill(ctx context.Context) error {
	rounds := float64(filledSpan / b.Load.Interval)
	b.Load.Series = max(1, int(float64(b.Size)/sampleBytes/rounds))
	// Some entries stay in the log whatever their size; an hour must have far more.
	b.Load.Batch = min(b.Load.Batch, max(1, b.Load.Series/4))
	b.Load.Duration = 0
	// Windows of six hours are complete then, and what comes next is not merged with them.
	b.next = time.Now().Add(-2 * filledSpan).Truncate(filledSpan)
	fmt.Fprintf(b.Out, "filling         %d series for %s\n", b.Load.Series, filledSpan)
	if err := b.load(ctx, filledSpan); err != nil {
		return err
	}
	for {
		if err := b.settle(ctx); err != nil {
			return err
		}
		m, err := fetch(ctx, b.leader)
		if err != nil {
			return err
		}
		fmt.Fprintf(b.Out, "blocks          %.1f MiB\n", bench.MiB(int64(m.Sum(blocksBytesMetric))))
		switch {
		case m.Sum(blocksBytesMetric) >= float64(b.Size):
			return nil
		case time.Until(b.next) > -2*missedSpan:
			return errSmall
		}
		if err := b.load(ctx, 20*b.Load.Interval); err != nil {
			return err
		}
	}
}

// load writes span of data.
func (b *catchUpBench) load(ctx context.Context, span time.Duration) error {
	o := b.Load
	o.URLs = []string{"http://" + b.leader.Addr + "/api/v1/write"}
	o.Start, o.Rounds = b.next, int(span/o.Interval)
	o.Seed = uint64(o.Start.UnixMilli())
	b.next = o.Start.Add(time.Duration(o.Rounds) * o.Interval)
	report, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprint(b.Out, report)
	return ctx.Err()
}

// settle finds the leader, and waits until the running nodes have applied all and have nothing left to flush.
func (b *catchUpBench) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	var err error
	if b.leader, err = b.cluster.Leader(ctx); err != nil {
		return err
	}
	for _, n := range b.cluster.Nodes {
		if n.Running() {
			if err := errors.Join(b.waitLevel(ctx, n), waitFlushed(ctx, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// waitLevel waits until node n has applied all that is committed.
func (b *catchUpBench) waitLevel(ctx context.Context, n *local.Server) error {
	c := b.leader.Client()
	defer c.Close()
	return await(ctx, n.Name+" has all", func() (bool, error) {
		var data struct {
			Nodes []struct {
				ID      string `json:"id"`
				Role    string `json:"role"`
				Applied uint64 `json:"applied_index"`
				Lag     uint64 `json:"lag"`
			} `json:"nodes"`
		}
		if err := c.Data(ctx, "/api/v1/cluster", nil, &data); err != nil {
			return false, err
		}
		for _, x := range data.Nodes {
			if x.ID == n.Name {
				return x.Role != "unreachable" && x.Applied > 0 && x.Lag == 0, nil
			}
		}
		return false, nil
	})
}

// waitFlushed waits until node n has no frozen memtable.
func waitFlushed(ctx context.Context, n *local.Server) error {
	return await(ctx, n.Name+" has flushed", func() (bool, error) {
		m, err := fetch(ctx, n)
		return err == nil && m.Sum(frozenMetric) == 0, err
	})
}

// await asks until f says yes; an error of f is a no.
func await(ctx context.Context, what string, f func() (bool, error)) error {
	ticker := time.NewTicker(settleEvery)
	defer ticker.Stop()
	for {
		ok, err := f()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%w: %s", errWait, what), ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// missedAnHour kills a follower, goes on without it until the log does not reach back to it, and lets it come again.
func (b *catchUpBench) missedAnHour(ctx context.Context) (caughtUp, error) {
	row := caughtUp{what: "missed " + missedSpan.String()}
	n := b.cluster.Followers(b.leader)[0]
	m, err := fetch(ctx, n)
	if err != nil {
		return row, err
	}
	if err := n.Kill(); err != nil {
		return row, err
	}
	if err := b.load(ctx, missedSpan); err != nil {
		return row, err
	}
	if err := b.settle(ctx); err != nil {
		return row, err
	}
	if err := b.waitLogCut(ctx, m.Sum(appliedMetric)); err != nil {
		return row, err
	}
	return b.measure(ctx, row, n)
}

// waitLogCut waits until the leader's log begins after index and a snapshot has what is missing in it.
func (b *catchUpBench) waitLogCut(ctx context.Context, index float64) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	return await(ctx, "the log of the leader is cut", func() (bool, error) {
		m, err := fetch(ctx, b.leader)
		return err == nil && m.Sum(firstLogMetric) > index+1 && m.Sum(snapshotIndexMetric) > index, err
	})
}

// wiped kills a follower and lets it come again with an empty data directory.
func (b *catchUpBench) wiped(ctx context.Context) (caughtUp, error) {
	row := caughtUp{what: "empty disk"}
	if err := b.settle(ctx); err != nil {
		return row, err
	}
	n := b.cluster.Followers(b.leader)[1]
	if err := n.Kill(); err != nil {
		return row, err
	}
	if err := errors.Join(os.RemoveAll(n.Dir), os.MkdirAll(n.Dir, 0o755)); err != nil {
		return row, err
	}
	return b.measure(ctx, row, n)
}

// measure starts node n and times it.
func (b *catchUpBench) measure(ctx context.Context, row caughtUp, n *local.Server) (caughtUp, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	var err error
	if row.offered, err = newestSnapshot(b.leader); err != nil {
		return row, err
	}
	fmt.Fprintf(b.Out, "starting        %s: %s\n", n.Name, row.what)
	start := time.Now()
	if err := n.Start(); err != nil {
		return row, err
	}
	if err := n.WaitReady(ctx); err != nil {
		return row, err
	}
	row.ready = time.Since(start)
	if err := b.waitLevel(ctx, n); err != nil {
		return row, err
	}
	row.level = time.Since(start)
	m, err := fetch(ctx, n)
	if err != nil {
		return row, err
	}
	if m.Sum(installsMetric) == 0 {
		return row, errByLog
	}
	row.fetched, row.kept = int64(m.Sum(fetchedMetric)), int64(m.Sum(keptMetric))
	return row, nil
}

// newestSnapshot is the size of the Raft snapshot that a node offers to others.
func newestSnapshot(n *local.Server) (int64, error) {
	dirs, err := filepath.Glob(filepath.Join(n.Dir, "snapshots-raft", "*-*-*", "data"))
	if err != nil {
		return 0, err
	}
	newest, index := "", uint64(0)
	for _, dir := range dirs {
		var term, i, msec uint64
		if _, err := fmt.Sscanf(filepath.Base(filepath.Dir(dir)), "%d-%d-%d", &term, &i, &msec); err == nil && i >= index {
			newest, index = dir, i
		}
	}
	d, err := bench.ReadDisk(newest)
	return d.Apparent, err
}

func printCaughtUp(w io.Writer, rows ...caughtUp) {
	fmt.Fprintf(w, "\n%-16s %12s %12s %12s %10s %10s %10s\n", "node", "offered MiB", "fetched MiB", "kept MiB", "fetched %", "ready s", "lag 0 s")
	for _, r := range rows {
		fmt.Fprintf(w, "%-16s %12.1f %12.1f %12.1f %10.1f %10.1f %10.1f\n", r.what, bench.MiB(r.offered), bench.MiB(r.fetched), bench.MiB(r.kept),
			100*float64(r.fetched)/float64(max(r.offered, 1)), r.ready.Seconds(), r.level.Seconds())
	}
}

// digest makes sure that all nodes hold the same.
func (b *catchUpBench) digest(ctx context.Context) error {
	c := b.leader.Client()
	defer c.Close()
	c.HTTP.Timeout = settleTimeout
	start := time.Now()
	d, err := c.Digest(ctx)
	if err != nil {
		return err
	}
	samples := make([]string, len(d.Nodes))
	for i, n := range d.Nodes {
		samples[i] = fmt.Sprintf("%s %d", n.ID, n.Samples())
	}
	fmt.Fprintf(b.Out, "\ndigest          %s at log index %d; samples: %s; %.1f s\n",
		d.Result, d.Index, strings.Join(samples, ", "), time.Since(start).Seconds())
	if d.Result != "equal" {
		return fmt.Errorf("%w: %s: %s", errUnequal, d.Result, strings.Join(d.Differing, ", "))
	}
	return nil
}
