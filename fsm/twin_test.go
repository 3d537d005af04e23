// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/deucaliondb/deucalion/storage"
)

// The twin test (DESIGN.md section 11.1): one random log, several state machines
// that freeze, flush, merge, clean, crash, restore and borrow snapshots at different
// moments, some while they are queried, and a trivial model. Verdicts and content
// must be equal, always.
//
//	DEUCALION_TWIN_RUNS=100 DEUCALION_TWIN_ENTRIES=200 go test -timeout 2h ./fsm -run TestTwin
//	DEUCALION_TWIN_ENTRIES=200 go test ./fsm -run TestTwin -rapid.seed=N    # as a failure prints
func TestTwin(t *testing.T) {
	runs, entries := envInt("DEUCALION_TWIN_RUNS", 5), envInt("DEUCALION_TWIN_ENTRIES", 120)
	if testing.Short() {
		runs, entries = envInt("DEUCALION_TWIN_RUNS", 1), envInt("DEUCALION_TWIN_ENTRIES", 60)
	}
	require.NoError(t, setRapidChecks(runs))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("To reproduce: DEUCALION_TWIN_ENTRIES=%d go test ./fsm -run '^TestTwin$' with the -rapid.seed or -rapid.failfile that rapid prints", entries)
		}
	})
	// Each flush and merge allocates buffers of megabytes for a few hundred samples.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	run, happened := 0, map[string]int{}
	var first sync.Once
	rapid.Check(t, func(rt *rapid.T) {
		w := newTwin(rt, t)
		w.onError = func(format string, args ...any) {
			first.Do(func() { t.Logf(format, args...) })
		}
		w.run(entries)
		run++
		t.Logf("run %d of %d entries: all replicas equal; %v", run, entries, w.happened)
		for what, n := range w.happened {
			happened[what] += n
		}
	})
	for _, events := range []struct {
		least int // entries; with fewer, chance may miss some
		names []string
	}{{600, rareEvents}, {3000, rarestEvents}} {
		for _, what := range events.names {
			if !t.Failed() && run*entries >= events.least {
				require.NotZero(t, happened[what], "never happened: %s", what)
			}
		}
	}
}

// rareEvents are what a log must be steered to; a change of the generator must not lose them.
var rareEvents = []string{
	"series dropped", "dropped id named", "id of no series named", "sent again with labels", "dropped series written again",
	"exemplar of a dropped series", "chain of snapshots borrowed", "older snapshot restored",
	"own blocks kept", "missed deletes applied to own blocks",
	"blocks imported", "old block imported", "newest sample of a series imported", "imported sample deleted",
}

// rarestEvents happen in half to three quarters of the logs of 120 entries, or, as a look that begins and ends within a
// restore, when the scheduler will.
var rarestEvents = []string{
	"window widened after a drop", "imported sample lost to another value", "imported sample below the cutoff", "series came with an import",
	"write refused for an imported sample", "watched during a restore",
}

func envInt(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

type schedule struct {
	name                                                string
	freeze, flush, merge, snapshot, crash, clean, steal int    // percent after each entry
	background                                          bool   // flush and merge on goroutines of their own
	watch                                               bool   // queried all the time
	classes                                             uint64 // of series that share one hash; 0: as in production
}

var schedules = []schedule{
	{name: "plain"},
	{name: "freezer", freeze: 20, flush: 20, merge: 5},
	{name: "crasher", freeze: 5, flush: 10, merge: 5, snapshot: 6, crash: 5, clean: 2, classes: 1},
	{name: "cleaner", freeze: 10, flush: 30, merge: 30, clean: 20, snapshot: 5},
	{name: "borrower", freeze: 5, flush: 10, merge: 5, crash: 2, snapshot: 4, steal: 6, watch: true, classes: 3},
	{name: "background", background: true, crash: 1, snapshot: 3, clean: 5, steal: 2, watch: true, classes: 7},
}

// maxSnaps is how many snapshots a replica keeps, like the store of package cluster.
const maxSnaps = 3

type replica struct {
	schedule
	dir   string
	snaps []snap // oldest first

	// What its watcher needs to know.
	mu       sync.RWMutex // held to write while f is exchanged
	f        *FSM
	restores atomic.Int64 // begun and ended ones; odd while one is under way
	low      atomic.Int64 // index that the restore under way goes back to
}

type snap struct {
	dir   string
	index int
}

type twin struct {
	*rapid.T
	dir      string
	model    *twinModel
	replicas []*replica
	log      [][]byte
	now      int64
	n        int // for names
	previous []genSample
	begun    atomic.Int64 // newest entry that a replica may have begun to apply
	happened map[string]int
	imports  importFiles
	watchers []*watcher
	onError  func(format string, args ...any)
}

// Errorf shows the first failure at once: rapid repeats the run to tell of it, and with goroutines that may go well.
func (w *twin) Errorf(format string, args ...any) {
	w.Helper()
	w.onError(format, args...)
	w.T.Errorf(format, args...)
}

func newTwin(rt *rapid.T, t *testing.T) *twin {
	dir, err := os.MkdirTemp(t.TempDir(), "twin")
	require.NoError(rt, err)
	w := &twin{T: rt, dir: dir, model: newModel(), now: 10_000 * minute, happened: map[string]int{}, imports: importFiles(filepath.Join(dir, "imports"))}
	require.NoError(rt, os.Mkdir(string(w.imports), 0o777))
	w.model.happened = w.happened
	for _, s := range schedules {
		r := &replica{schedule: s, dir: filepath.Join(dir, s.name)}
		r.f = w.open(r, "")
		w.replicas = append(w.replicas, r)
	}
	w.watchers = w.startWatchers()
	rt.Cleanup(func() {
		for _, x := range w.watchers {
			x.stop()
		}
		for _, r := range w.replicas {
			r.f.Close()
		}
		os.RemoveAll(dir)
	})
	return w
}

func (w *twin) open(r *replica, from string) *FSM {
	o := Options{Dir: r.dir, Storage: storage.Options{Manual: !r.background}}
	if r.background {
		o.Storage.FreezeSpan, o.Storage.FreezeSamples = 20*time.Minute, 100
	}
	if r.classes > 0 {
		o.hash = func(ls labels.Labels) uint64 { return ls.Hash() % r.classes }
	}
	f, err := Open(o, from)
	require.NoError(w, err)
	f.SetImportFiles(w.imports)
	return f
}

func (w *twin) chance(percent int, label string) bool {
	return percent > 0 && rapid.IntRange(1, 100).Draw(w.T, label) <= percent
}

func (w *twin) run(entries int) {
	w.settings(Settings{MaxExemplars: 50, ClusterID: "twin"})
	for i := range entries {
		w.step()
		for _, r := range w.replicas {
			w.disturb(r)
		}
		for _, x := range w.watchers {
			require.NoError(w, x.err(), "%s: queried while it worked", x.r.name)
		}
		if i%20 == 19 || i == entries-1 {
			w.compare()
		}
	}
	w.compareDigests()
	w.compareUserSnapshots()
	for _, x := range w.watchers {
		x.stop()
		require.NoError(w, x.err(), "%s: queried while it worked", x.r.name)
		require.NotZero(w, x.complete, "%s: no look found everything", x.r.name)
		w.happened["watched during a restore"] += x.during
		w.happened["watched"] += x.complete
	}
}

// apply gives every replica the next entry and compares the results with the
// model's verdicts.
func (w *twin) apply(entry []byte, want []Refusal, unknown bool) {
	w.log = append(w.log, entry)
	index := uint64(len(w.log))
	w.begun.Store(int64(index))
	for _, x := range w.watchers {
		x.kick()
	}
	for _, r := range w.replicas {
		got := r.f.Apply(index, 1, entry)
		r.f.Publish(index, 1)
		require.NoError(w, r.f.Err(), r.name)
		require.Empty(w, got.Err, r.name)
		require.Equal(w, unknown, got.Unknown, "%s: entry %d", r.name, index)
		require.Equal(w, want, got.Refused, "%s: entry %d", r.name, index)
	}
}

func (w *twin) disturb(r *replica) {
	s := r.f.Storage()
	if w.chance(r.freeze, "freeze") {
		require.NoError(w, s.Freeze())
	}
	if w.chance(r.flush, "flush") {
		_, err := s.FlushOne()
		require.NoError(w, err)
	}
	if w.chance(r.merge, "merge") {
		_, err := s.MergeOne()
		require.NoError(w, err)
	}
	if w.chance(r.clean, "clean") {
		w.n++
		r.f.tasks.clean(fmt.Sprint("local-", w.n)) // races with what follows; a crash interrupts it
	}
	if w.chance(r.snapshot, "snapshot") {
		w.snapshot(r)
	}
	if w.chance(r.crash, "crash") {
		w.crash(r)
	}
	if w.chance(r.steal, "steal") {
		w.steal(r)
	}
}

func (w *twin) snapshot(r *replica) {
	w.n++
	dir := filepath.Join(w.dir, fmt.Sprintf("snap-%s-%d", r.name, w.n))
	require.NoError(w, os.Mkdir(dir, 0o777))
	s, err := r.f.Snapshot()
	require.NoError(w, err)
	require.NoError(w, s.Persist(w.Context(), dir))
	s.Release()
	require.NoError(w, VerifySnapshot(dir, true))
	r.keep(snap{dir, len(w.log)})
}

// keep does not remove the files of what it forgets: others may have borrowed them.
func (r *replica) keep(s snap) {
	r.snaps = append(r.snaps, s)
	r.snaps = r.snaps[max(0, len(r.snaps)-maxSnaps):]
}

// crash loses everything since a snapshot, mostly the newest one, and replays the log.
func (w *twin) crash(r *replica) {
	var from snap
	if n := len(r.snaps); n > 0 {
		if n > 1 && w.chance(30, "newest is damaged") {
			n--
			w.happened["older snapshot restored"]++
		}
		from = r.snaps[n-1]
	}
	r.mu.Lock()
	require.NoError(w, r.f.Close())
	r.f = w.open(r, from.dir)
	r.restoring(from.index)
	r.mu.Unlock()
	w.replay(r, from.index, len(w.log))
	r.restored()
}

// steal installs another replica's snapshot into a running state machine, as
// Raft does with a follower that is far behind: perhaps an old one, the log after
// it, and then, because it took too long, a newer one.
func (w *twin) steal(r *replica) {
	from := w.replicas[rapid.IntRange(0, len(w.replicas)-1).Draw(w.T, "from")]
	if len(from.snaps) == 0 {
		return
	}
	first := rapid.IntRange(0, len(from.snaps)-1).Draw(w.T, "first")
	chain := slices.Clone(from.snaps[first:])
	slices.SortFunc(chain, func(a, b snap) int { return a.index - b.index }) // it may have borrowed an older one itself
	if !w.chance(50, "chain") {
		chain = chain[:1]
	}
	r.restoring(chain[0].index)
	for i, s := range chain {
		if w.chance(60, "own blocks") {
			s.dir = w.assemble(r, s)
		}
		require.NoError(w, r.f.Restore(s.dir))
		to := len(w.log)
		if i+1 < len(chain) {
			to = rapid.IntRange(s.index, chain[i+1].index).Draw(w.T, "to")
			w.happened["chain of snapshots borrowed"]++
		}
		w.replay(r, s.index, to)
		r.keep(s)
	}
	r.restored()
	w.happened["snapshot borrowed"]++
}

// assemble makes the snapshot s out of blocks of s and of the newest snapshot of r
// that is not newer, as a catch-up over the network does.
func (w *twin) assemble(r *replica, s snap) string {
	var b *Base
	for _, own := range r.snaps {
		if own.index <= s.index && (b == nil || uint64(own.index) >= b.Index()) {
			var err error
			b, err = OpenBase(w.Context(), own.dir)
			require.NoError(w, err)
		}
	}
	m, err := ReadManifest(s.dir)
	require.NoError(w, err)
	c, err := PlanCatchUp(m, filepath.Join(s.dir, stateName), b)
	require.NoError(w, err)
	if len(c.Keep) > 0 {
		w.happened["own blocks kept"]++
	}
	if len(c.deletes) > 0 {
		w.happened["missed deletes applied to own blocks"]++
	}
	dst, err := os.MkdirTemp(w.dir, "assembled-")
	require.NoError(w, err)
	require.NoError(w, c.Assemble(w.Context(), dst, filepath.Join(s.dir, blocksName), filepath.Join(s.dir, stateName)))
	require.NoError(w, VerifySnapshot(dst, true))
	return dst
}

func (r *replica) restoring(index int) {
	r.low.Store(int64(index))
	r.restores.Add(1)
}

func (r *replica) restored() { r.restores.Add(1) }

func (w *twin) replay(r *replica, from, to int) {
	index, _ := r.f.Applied()
	require.EqualValues(w, from, index, r.name)
	for i := from; i < to; i++ {
		for _, x := range w.watchers {
			if x.r == r {
				x.kick()
			}
		}
		r.f.Apply(uint64(i+1), 1, w.log[i])
		r.f.Publish(uint64(i+1), 1)
	}
	require.NoError(w, r.f.Err(), r.name)
}

func (w *twin) compare() {
	a := w.now - rapid.Int64Range(0, 500*minute).Draw(w.T, "mint")
	b := a + rapid.Int64Range(0, 200*minute).Draw(w.T, "span")
	group := labels.MustNewMatcher(labels.MatchEqual, "g", fmt.Sprint(rapid.IntRange(0, 2).Draw(w.T, "group")))
	for _, rg := range [][2]int64{{-1 << 50, 1 << 50}, {a, b}, {a, a}} {
		want := w.model.dump(rg[0], rg[1])
		names, values := w.model.labels(rg[0], rg[1], "i")
		for _, r := range w.replicas {
			for _, way := range dumps {
				require.Equal(w, want, way.dump(w, r.f, rg[0], rg[1]), "%s: entry %d, range %v, %s", r.name, len(w.log), rg, way.name)
			}
			gotNames, gotValues := labelsOf(w, r.f, rg[0], rg[1], "i")
			require.Equal(w, names, gotNames, "%s: label names in %v", r.name, rg)
			require.Equal(w, values, gotValues, "%s: label values in %v", r.name, rg)
			require.Equal(w, w.model.series(rg[0], rg[1], group), seriesOf(w, r.f, rg[0], rg[1], group), "%s: series in %v", r.name, rg)
			require.Equal(w, w.model.series(rg[0], rg[1], group), valuesOf(w, r.f, rg[0], rg[1], group), "%s: label values of %s in %v", r.name, group, rg)
		}
	}
	for _, r := range w.replicas {
		require.Equal(w, w.model.exemplarDump(), exemplarDump(w, r.f), "%s: exemplars", r.name)
		require.Equal(w, w.model.metadata, r.f.MetricMetadata(), "%s: metadata", r.name)
		require.Equal(w, w.model.tableDump(), tableDump(r.f), "%s: series table", r.name)
		require.Equal(w, w.model.shipped, r.f.Shipped(), "%s: positions of remote stores", r.name)
		require.Equal(w, w.model.settings, r.f.Settings(), "%s: settings", r.name)
		require.Equal(w, w.model.maxT, r.f.MaxTime(), "%s: largest timestamp", r.name)
		require.Equal(w, w.model.cutoff, r.f.Cutoff(), "%s: cutoff", r.name)
	}
	// Not in the model: which type a series' newest sample has, and with it the type of the stale marker to come.
	for _, r := range w.replicas[1:] {
		require.Equal(w, kindDump(w.replicas[0].f), kindDump(r.f), r.name)
	}
}

// compareUserSnapshots opens the user snapshot of each replica with TSDB itself.
func (w *twin) compareUserSnapshots() {
	w.apply(EncodeUserSnapshot(UserSnapshot{ID: "final", Name: "final"}), nil, false)
	want := w.model.dump(-1<<50, 1<<50)
	for _, r := range w.replicas {
		require.NoError(w, r.f.WaitTask(w.Context(), "final"), r.name)
		require.Equal(w, want, dumpDirectory(w, filepath.Join(r.dir, "snapshots", "final")), "%s: user snapshot", r.name)
	}
}

// setRapidChecks sets the number of runs, which rapid takes from a flag only. An
// explicit -rapid.checks wins.
func setRapidChecks(n int) error {
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "rapid.checks" })
	if set {
		return nil
	}
	return flag.Set("rapid.checks", strconv.Itoa(n))
}
