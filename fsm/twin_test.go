// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/deucaliondb/deucalion/storage"
)

// The twin test (DESIGN.md section 11.1): one random log, several state machines
// that freeze, flush, merge, clean, crash and restore at different moments, and
// a trivial model. Verdicts and content must be equal, always.
//
//	DEUCALION_TWIN_RUNS=100 DEUCALION_TWIN_ENTRIES=200 go test ./fsm -run TestTwin
//	go test ./fsm -run TestTwin -rapid.seed=N    # the seed that a failure prints
func TestTwin(t *testing.T) {
	runs, entries := envInt("DEUCALION_TWIN_RUNS", 5), envInt("DEUCALION_TWIN_ENTRIES", 120)
	if testing.Short() {
		runs, entries = envInt("DEUCALION_TWIN_RUNS", 1), envInt("DEUCALION_TWIN_ENTRIES", 60)
	}
	require.NoError(t, setRapidChecks(runs))
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		newTwin(rt, t).run(entries)
		run++
		t.Logf("run %d of %d entries: all replicas equal", run, entries)
	})
}

func envInt(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

type schedule struct {
	name                                                string
	freeze, flush, merge, snapshot, crash, clean, steal int // percent after each entry
	background                                          bool
	collide                                             bool // all series share one hash
}

var schedules = []schedule{
	{name: "plain"},
	{name: "freezer", freeze: 20, flush: 20, merge: 5},
	{name: "crasher", freeze: 5, flush: 10, merge: 5, snapshot: 6, crash: 5, clean: 2, collide: true},
	{name: "cleaner", freeze: 10, flush: 30, merge: 30, clean: 20, snapshot: 5},
	{name: "borrower", freeze: 2, flush: 10, crash: 3, steal: 4},
	{name: "background", background: true, crash: 1, snapshot: 3, clean: 5},
}

type replica struct {
	schedule
	f         *FSM
	dir       string
	snap      string // newest snapshot
	snapIndex int
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
}

func newTwin(rt *rapid.T, t *testing.T) *twin {
	dir, err := os.MkdirTemp(t.TempDir(), "twin")
	require.NoError(rt, err)
	w := &twin{T: rt, dir: dir, model: newModel(), now: 10_000 * minute}
	for _, s := range schedules {
		r := &replica{schedule: s, dir: filepath.Join(dir, s.name)}
		w.open(r, "")
		w.replicas = append(w.replicas, r)
	}
	rt.Cleanup(func() {
		for _, r := range w.replicas {
			r.f.Close()
		}
		os.RemoveAll(dir)
	})
	return w
}

func (w *twin) open(r *replica, from string) {
	o := Options{Dir: r.dir, Storage: storage.Options{Manual: !r.background}}
	if r.background {
		o.Storage.FreezeSpan, o.Storage.FreezeSamples = 20*time.Minute, 100
	}
	if r.collide {
		o.hash = func(labels.Labels) uint64 { return 42 }
	}
	f, err := Open(o, from)
	require.NoError(w, err)
	r.f = f
}

func (w *twin) chance(percent int, label string) bool {
	return percent > 0 && rapid.IntRange(1, 100).Draw(w.T, label) <= percent
}

func (w *twin) run(entries int) {
	w.apply(EncodeSettings(Settings{MaxExemplars: 50}), nil, false)
	for i := range entries {
		w.step()
		for _, r := range w.replicas {
			w.disturb(r)
		}
		if i%20 == 19 || i == entries-1 {
			w.compare()
		}
	}
	w.compareDigests()
	w.compareUserSnapshots()
}

// apply gives every replica the next entry and compares the results with the
// model's verdicts.
func (w *twin) apply(entry []byte, want []Refusal, unknown bool) {
	w.log = append(w.log, entry)
	index := uint64(len(w.log))
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
	r.snap, r.snapIndex = dir, len(w.log)
}

// crash loses everything since the newest snapshot and replays the log.
func (w *twin) crash(r *replica) {
	require.NoError(w, r.f.Close())
	w.open(r, r.snap)
	w.replay(r, r.snapIndex)
}

// steal installs another replica's snapshot into a running state machine, as
// Raft does with a follower that is far behind.
func (w *twin) steal(r *replica) {
	from := w.replicas[2]
	if from.snap == "" {
		return
	}
	require.NoError(w, r.f.Restore(from.snap))
	w.replay(r, from.snapIndex)
	r.snap, r.snapIndex = from.snap, from.snapIndex
}

func (w *twin) replay(r *replica, from int) {
	index, _ := r.f.Applied()
	require.EqualValues(w, from, index, r.name)
	for i := from; i < len(w.log); i++ {
		r.f.Apply(uint64(i+1), 1, w.log[i])
		r.f.Publish(uint64(i+1), 1)
	}
	require.NoError(w, r.f.Err(), r.name)
}

func (w *twin) compare() {
	a := w.now - rapid.Int64Range(0, 500*minute).Draw(w.T, "mint")
	b := a + rapid.Int64Range(0, 200*minute).Draw(w.T, "span")
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
		}
	}
	first := w.replicas[0].f
	for _, r := range w.replicas[1:] {
		require.Equal(w, exemplarDump(w, first), exemplarDump(w, r.f), r.name)
		require.Equal(w, first.MetricMetadata(), r.f.MetricMetadata(), r.name)
		require.Equal(w, tableDump(first), tableDump(r.f), r.name)
		require.Equal(w, first.Settings(), r.f.Settings(), r.name)
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

// step draws the next entry.
func (w *twin) step() {
	switch k := rapid.IntRange(0, 99).Draw(w.T, "kind"); {
	case k < 5:
		w.stepDelete()
	case k < 7:
		w.stepCutoff()
	case k < 9:
		w.stepSettings()
	case k < 11:
		w.n++
		w.apply(EncodeClean(fmt.Sprint("clean-", w.n)), nil, false)
	case k < 12:
		w.apply(EncodeNoop(), nil, false)
	case k < 17 && w.previous != nil:
		w.stepAppend(slices.Clone(w.previous)) // a client sends a request again
	default:
		w.now += rapid.Int64Range(0, 10*minute).Draw(w.T, "advance")
		w.previous = w.drawSamples()
		w.stepAppend(slices.Clone(w.previous))
	}
}

func (w *twin) stepDelete() {
	w.n++
	d := Delete{ID: fmt.Sprint("delete-", w.n), Mint: w.now - rapid.Int64Range(0, 300*minute).Draw(w.T, "mint")}
	d.Maxt = d.Mint + rapid.Int64Range(0, 120*minute).Draw(w.T, "span")
	if w.chance(25, "all time") {
		d.Mint, d.Maxt = storage.NoTime, 1<<62
	}
	for range rapid.IntRange(1, 2).Draw(w.T, "selectors") {
		d.Selectors = append(d.Selectors, []*labels.Matcher{
			labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, fmt.Sprintf("m[%d%d]", rapid.IntRange(0, 3).Draw(w.T, "m"), rapid.IntRange(0, 3).Draw(w.T, "m"))),
			labels.MustNewMatcher(labels.MatchEqual, "g", fmt.Sprint(rapid.IntRange(0, 2).Draw(w.T, "g"))),
		})
	}
	e := EncodeDelete(d)
	w.model.delete(d)
	w.apply(e, nil, false)
	if w.chance(20, "retry") { // must have no effect
		w.apply(e, nil, false)
	}
}

func (w *twin) stepCutoff() {
	t := storage.NoTime // only drops idle series
	if w.chance(50, "retention") {
		t = w.now - 400*minute - rapid.Int64Range(0, 100*minute).Draw(w.T, "cutoff")
		w.model.cutoff = max(w.model.cutoff, t)
	}
	w.apply(EncodeCutoff(t), nil, false)
}

func (w *twin) stepSettings() {
	s := Settings{
		OutOfOrderWindow: time.Duration(rapid.SampledFrom([]int{0, 30, 180}).Draw(w.T, "window")) * time.Minute,
		MaxExemplars:     rapid.SampledFrom([]int64{0, 20, 50}).Draw(w.T, "exemplars"),
	}
	w.model.window = s.OutOfOrderWindow
	w.apply(EncodeSettings(s), nil, false)
}

// stepAppend encodes samples as a proposer with an old copy of the series table
// might: some series by id, some with labels.
func (w *twin) stepAppend(gs []genSample) {
	e := &appendEntry{}
	ids := w.replicas[0].f.table.Load()
	positions := map[int]int{}
	unknown := false
	for i := range gs {
		g := &gs[i]
		if id := w.model.ids[g.series]; id != 0 && !w.chance(15, "with labels") {
			g.known = true
			unknown = unknown || ids.byID(id) == nil
			e.known.add(refOf(id), g.sample)
			continue
		}
		p, ok := positions[g.series]
		if !ok {
			p = len(e.series)
			positions[g.series] = p
			e.series = append(e.series, refSeries(p, seriesLabels(g.series)))
		}
		e.fresh.add(refOf(uint64(p)), g.sample)
	}
	w.addExtras(e)
	if unknown {
		w.apply(e.encode(), nil, true)
		w.model.forget(ids)
		return
	}
	w.apply(e.encode(), w.model.verdicts(e, func(known bool, ref uint64) int {
		if known {
			return w.model.seriesOf(ref)
		}
		return seriesNumber(e.series[ref].Labels)
	}), false)
	w.model.learn(ids)
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
