// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

// digestNow computes a digest of the state as it is. Applier only.
func (f *FSM) digestNow(mint, maxt int64) (DigestResult, error) {
	s, err := f.Snapshot()
	if err != nil {
		return DigestResult{}, err
	}
	defer s.Release()
	return s.digest(f.ctx, Digest{Hurry: true, Ranges: []TimeRange{{mint, maxt}}})
}

func digestOf(t testing.TB, f *FSM) DigestResult {
	t.Helper()
	r, err := f.digestNow(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	r.Seconds = 0
	return r
}

// compareDigests runs last: a digest freezes, which the schedules decide.
func (w *twin) compareDigests() {
	mint := w.now - 300*minute
	for _, maxt := range []int64{1 << 50, w.now - 100*minute} {
		want, err := w.replicas[0].f.digestNow(mint, maxt)
		require.NoError(w, err)
		for _, r := range w.replicas[1:] {
			got, err := r.f.digestNow(mint, maxt)
			require.NoError(w, err, r.name)
			got.Seconds = want.Seconds
			require.Equal(w, want, got, "%s: digest", r.name)
		}
	}
}

// digestLog has every type of sample and table, in two partitions.
func digestLog(t testing.TB) [][]byte {
	var log [][]byte
	log = append(log, EncodeSettings(Settings{MaxExemplars: 10, OutOfOrderWindow: time.Hour, ClusterID: "c"}))
	log = append(log, goldenFresh().encode(), goldenAppend().encode())
	e := &appendEntry{}
	for i := range 20 {
		e.series = append(e.series, refSeries(i, labels.FromStrings(model.MetricNameLabel, "many", "i", fmt.Sprint(i))))
		for k := range int64(300) {
			x := storage.Sample{T: base + k*30_000, V: float64(k)}
			switch i % 5 {
			case 1:
				x.H = tsdbutil.GenerateTestHistogram(k)
			case 2:
				x.FH = tsdbutil.GenerateTestFloatHistogram(k)
			case 3:
				x.H = tsdbutil.GenerateTestCustomBucketsHistogram(k)
			case 4:
				x.FH = tsdbutil.GenerateTestGaugeFloatHistogram(k)
			}
			e.fresh.add(refOf(uint64(i)), x)
		}
	}
	log = append(log, e.encode())
	log = append(log, EncodeDelete(Delete{ID: "d", Selectors: [][]*labels.Matcher{equals("i", "7")}, Mint: base + 60_000, Maxt: base + 90_000}))
	return append(log, EncodeCutoff(base+10))
}

func applyAll(t testing.TB, f *FSM, log [][]byte, after func(i int)) {
	t.Helper()
	for i, e := range log {
		r := f.Apply(uint64(i+1), 1, e)
		require.Empty(t, r.Err)
		f.Publish(uint64(i+1), 1)
		if after != nil {
			after(i)
		}
	}
}

func TestDigestIgnoresLayout(t *testing.T) {
	log := digestLog(t)
	plain := newFSM(t, "")
	applyAll(t, plain, log, nil)
	want := digestOf(t, plain)
	require.EqualValues(t, 2+20, want.Ranges[0].Series, "the cutoff takes all that the others had")
	require.EqualValues(t, 2+20*299-2, want.Ranges[0].Samples, "without the deleted ones")
	require.NotEqual(t, want.StateHash, want.Ranges[0].Hash)
	require.Equal(t, want, digestOf(t, plain), "again")

	merged := newFSM(t, "")
	applyAll(t, merged, log, func(int) {
		require.NoError(t, merged.store.Freeze())
		_, err := merged.store.FlushOne()
		require.NoError(t, err)
		_, err = merged.store.MergeOne()
		require.NoError(t, err)
	})
	require.NoError(t, merged.store.Clean(t.Context()))
	require.Equal(t, want, digestOf(t, merged), "merged and cleaned")
	require.Equal(t, want, digestOf(t, newFSM(t, persist(t, merged))), "restored")
	left, err := filepath.Glob(filepath.Join(plain.opts.Dir, "live", "digest-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestDigestOfEmptyBuckets: a chunk may have to keep them, and where one begins is the node's own.
func TestDigestOfEmptyBuckets(t *testing.T) {
	log := [][]byte{EncodeSettings(Settings{OutOfOrderWindow: time.Hour})}
	for k := range int64(8) {
		e := &appendEntry{series: []record.RefSeries{refSeries(0, labels.FromStrings(model.MetricNameLabel, "gaps"))}}
		e.fresh.add(0, storage.Sample{T: base + k*30_000, H: &histogram.Histogram{
			Count: uint64(2 + 3*k), Sum: 1, PositiveSpans: []histogram.Span{{Offset: 1, Length: 4}}, PositiveBuckets: []int64{1 + k, -1, 1 - k, -1 + k},
		}})
		log = append(log, e.encode())
	}
	plain, frozen := newFSM(t, ""), newFSM(t, "")
	applyAll(t, plain, log, nil)
	applyAll(t, frozen, log, func(int) { require.NoError(t, frozen.store.Freeze()) })
	require.Equal(t, digestOf(t, plain), digestOf(t, frozen))
}

func TestDigestSeesEveryChange(t *testing.T) {
	digest := func(change func(*appendEntry, *Settings)) DigestResult {
		e, s := goldenFresh(), goldenSettings()
		change(e, &s)
		f := newFSM(t, "")
		applyAll(t, f, [][]byte{EncodeSettings(s), e.encode()}, nil)
		return digestOf(t, f)
	}
	want := digest(func(*appendEntry, *Settings) {})
	for name, change := range map[string]func(*appendEntry, *Settings){
		"value":        func(e *appendEntry, _ *Settings) { e.fresh.floats[0].V = math.Nextafter(1.5, 2) },
		"sign of zero": func(e *appendEntry, _ *Settings) { e.fresh.floats[0].V = math.Copysign(0, -1) },
		"time":         func(e *appendEntry, _ *Settings) { e.fresh.floats[0].T++ },
		"stale":        func(e *appendEntry, _ *Settings) { e.fresh.floats[1].V = math.NaN() },
		"label":        func(e *appendEntry, _ *Settings) { e.series[0].Labels = labels.FromStrings("a", "b") },
		"sample less":  func(e *appendEntry, _ *Settings) { e.fresh.floats = e.fresh.floats[:2] },
		"count": func(e *appendEntry, _ *Settings) {
			e.fresh.histograms[0].H.Count++
			e.fresh.histograms[0].H.ZeroCount++
		},
		"offset":    func(e *appendEntry, _ *Settings) { e.fresh.histograms[0].H.PositiveSpans[1].Offset++ },
		"sum":       func(e *appendEntry, _ *Settings) { e.fresh.histograms[0].H.Sum++ },
		"threshold": func(e *appendEntry, _ *Settings) { e.fresh.histograms[0].H.ZeroThreshold *= 2 },
		"bucket": func(e *appendEntry, _ *Settings) {
			e.fresh.floatHistograms[0].FH.PositiveBuckets[1] += 0.25
			e.fresh.floatHistograms[0].FH.Count += 0.25
		},
		"gauge":         func(e *appendEntry, _ *Settings) { e.fresh.floatHistograms[0].FH.CounterResetHint = 0 },
		"custom values": func(e *appendEntry, _ *Settings) { e.fresh.customHistograms[0].H.CustomValues[2] = 11 },
	} {
		got := digest(change)
		require.NotEqual(t, want.Ranges[0].Hash, got.Ranges[0].Hash, name)
	}
	for name, change := range map[string]func(*appendEntry, *Settings){
		"exemplar": func(e *appendEntry, _ *Settings) { e.fresh.exemplars[0].V++ },
		"metadata": func(e *appendEntry, _ *Settings) { e.metadata[0].Unit = "bytes" },
		"metadata order": func(e *appendEntry, _ *Settings) {
			e.metadata = append(e.metadata, familyMetadata{"new", metadata.Metadata{}})
		},
		"window":  func(_ *appendEntry, s *Settings) { s.OutOfOrderWindow++ },
		"cluster": func(_ *appendEntry, s *Settings) { s.ClusterID = "x" },
	} {
		got := digest(change)
		require.NotEqual(t, want.StateHash, got.StateHash, name)
		require.Equal(t, want.Ranges, got.Ranges, name)
	}
	same := digest(func(e *appendEntry, _ *Settings) {
		h := e.fresh.histograms[0].H // the same buckets, spelled with an empty one
		h.PositiveSpans, h.PositiveBuckets = []histogram.Span{{Offset: 0, Length: 4}}, []int64{1, 1, -2, 1}
	})
	require.Equal(t, want, same, "another layout of spans")
}

func waitDigest(t *testing.T, f *FSM, id string) DigestResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	r, err := f.WaitDigest(ctx, id)
	require.NoError(t, err)
	return r
}

func TestDigestEntry(t *testing.T) {
	f, l := alone(t)
	put(t, f, l, name("x"), base, 1)
	put(t, f, l, name("x"), base+5_000, 2)
	whole := []TimeRange{{math.MinInt64, math.MaxInt64}, {base, base}}
	index := l.apply(t, EncodeDigest(Digest{ID: "a", Hurry: true, Ranges: whole})).Index
	put(t, f, l, name("x"), base+10_000, 3) // comes later, does not count
	a := waitDigest(t, f, "a")
	require.Empty(t, a.Err)
	require.Equal(t, index, a.Index)
	require.EqualValues(t, 2, a.Ranges[0].Samples)
	require.EqualValues(t, 1, a.Ranges[1].Samples)
	_, err := f.WaitDigest(t.Context(), "b")
	require.ErrorIs(t, err, ErrUnknownTask)

	// One at a time. The first is made slow by its pace alone.
	f.digests.running = true
	l.apply(t, EncodeDigest(Digest{ID: "b"}))
	b := waitDigest(t, f, "b")
	require.True(t, b.Busy)
	require.NotEmpty(t, b.Err)
	f.digests.running = false
	for i := range digestMemory {
		l.apply(t, EncodeDigest(Digest{ID: fmt.Sprint(i)}))
		require.Empty(t, waitDigest(t, f, fmt.Sprint(i)).Err)
	}
	_, err = f.WaitDigest(t.Context(), "a")
	require.ErrorIs(t, err, ErrUnknownTask, "only the newest results are kept")

	// A replay computes none, and so is not busy with an old one.
	g := newFSM(t, "")
	g.SkipDigests(uint64(l.len()))
	l.catchUp(g)
	require.Empty(t, g.digests.runs)
	l.apply(t, EncodeDigest(Digest{ID: "new", Ranges: whole}))
	l.catchUp(g)
	want, got := waitDigest(t, f, "new"), waitDigest(t, g, "new")
	require.Empty(t, got.Err)
	require.Equal(t, want.Ranges, got.Ranges)
	require.Equal(t, want.StateHash, got.StateHash)
}

// A block that cannot be read is reported, and does not stop the node.
func TestDigestOfDamagedBlock(t *testing.T) {
	f := newFSM(t, "")
	log := digestLog(t)
	applyAll(t, f, log, nil)
	require.NoError(t, f.store.Freeze())
	_, err := f.store.FlushOne()
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(f.opts.Dir, "live", "blocks-*", "*", "chunks", "000001"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	file, err := os.OpenFile(files[0], os.O_RDWR, 0)
	require.NoError(t, err)
	defer file.Close()
	b := make([]byte, 1)
	_, err = file.ReadAt(b, 100)
	require.NoError(t, err)
	_, err = file.WriteAt([]byte{b[0] ^ 4}, 100)
	require.NoError(t, err)
	f.Apply(uint64(len(log)+1), 1, EncodeDigest(Digest{ID: "a", Hurry: true, Ranges: []TimeRange{{0, math.MaxInt64}}}))
	r := waitDigest(t, f, "a")
	require.Contains(t, r.Err, "checksum")
	require.False(t, r.Busy)
	require.NoError(t, f.Err())
}

func TestPacer(t *testing.T) {
	p := newPacer(false)
	p.since = time.Now().Add(-time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	var err error
	for range 1024 {
		err = p.step(ctx)
	}
	require.ErrorIs(t, err, context.DeadlineExceeded, "it rests, until it is told to end")

	p = newPacer(false)
	start, steps := time.Now(), 0
	for time.Since(start) < 300*time.Millisecond {
		for worked := time.Now(); time.Since(worked) < 5*time.Millisecond; {
		}
		for range 1024 {
			require.NoError(t, p.step(t.Context()))
		}
		steps++
	}
	require.LessOrEqual(t, steps, 24, "5 ms each; at full speed it would be 60")
}
