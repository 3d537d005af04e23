// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/hex"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

var update = flag.Bool("update", false, "write the golden files anew: only for a new format, old ones must stay readable")

const goldenDir = "testdata/golden"

// golden compares b with the golden file, 32 bytes a line in hex, and returns
// the file's bytes.
func golden(t testing.TB, name string, b []byte) []byte {
	t.Helper()
	file := filepath.Join(goldenDir, name+".hex")
	if *update {
		var sb strings.Builder
		for rest := b; len(rest) > 0; {
			n := min(32, len(rest))
			sb.WriteString(hex.EncodeToString(rest[:n]) + "\n")
			rest = rest[n:]
		}
		require.NoError(t, os.WriteFile(file, []byte(sb.String()), 0o666))
	}
	want := readGolden(t, name)
	require.Equal(t, hex.EncodeToString(want), hex.EncodeToString(b), "%s: the format on disk and on the wire changed", name)
	return want
}

func readGolden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(goldenDir, name+".hex"))
	require.NoError(t, err)
	b, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	require.NoError(t, err)
	return b
}

// goldenSamples fills every list of samples. The refs are first, first+1, ...
func goldenSamples(first uint64) samples {
	h := &histogram.Histogram{
		Schema: 1, ZeroThreshold: 0.001, ZeroCount: 2, Count: 9, Sum: 18.5,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{1, 1, -1},
		NegativeSpans: []histogram.Span{{Offset: -3, Length: 1}}, NegativeBuckets: []int64{3},
	}
	fh := &histogram.FloatHistogram{
		CounterResetHint: histogram.GaugeType,
		Schema:           -2, ZeroThreshold: 0.5, ZeroCount: 0.25, Count: 4.75, Sum: -3,
		PositiveSpans: []histogram.Span{{Offset: 4, Length: 2}}, PositiveBuckets: []float64{1.5, 3},
	}
	ch := &histogram.Histogram{
		Schema: histogram.CustomBucketsSchema, Count: 4, Sum: 7,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 3}}, PositiveBuckets: []int64{1, 1, -1}, CustomValues: []float64{0.1, 1, 10},
	}
	cfh := &histogram.FloatHistogram{
		Schema: histogram.CustomBucketsSchema, Count: 2.5, Sum: 1,
		PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []float64{2, 0.5}, CustomValues: []float64{-1, 1, 5},
	}
	return samples{
		floats: []record.RefSample{
			{Ref: refOf(first), T: base, V: 1.5},
			{Ref: refOf(first), T: base + 15_000, V: math.Float64frombits(value.StaleNaN)},
			{Ref: refOf(first + 1), T: base + 1, V: math.Inf(-1)},
		},
		histograms:       []record.RefHistogramSample{{Ref: refOf(first + 2), T: base + 2, H: h}},
		floatHistograms:  []record.RefFloatHistogramSample{{Ref: refOf(first + 3), T: base + 3, FH: fh}},
		customHistograms: []record.RefHistogramSample{{Ref: refOf(first + 4), T: base + 4, H: ch}},
		customFloatHists: []record.RefFloatHistogramSample{{Ref: refOf(first + 5), T: base + 5, FH: cfh}},
		exemplars:        []record.RefExemplar{{Ref: refOf(first), T: base, V: 1.25, Labels: labels.FromStrings("trace_id", "abc")}},
	}
}

// goldenAppend has every section. Ids 1 to 6 are known once goldenFresh was
// applied.
func goldenAppend() *appendEntry {
	e := &appendEntry{known: goldenSamples(1), fresh: goldenSamples(0)}
	for i := range 6 {
		e.series = append(e.series, refSeries(i, labels.FromStrings(model.MetricNameLabel, "new", "n", string(rune('a'+i)), "ünicode", "π")))
	}
	e.metadata = []familyMetadata{{"new", metadata.Metadata{Type: "counter", Unit: "seconds", Help: "Help, with ü."}}, {"other", metadata.Metadata{}}}
	return e
}

func goldenFresh() *appendEntry {
	e := goldenAppend()
	e.known = samples{}
	for i := range e.series {
		e.series[i].Labels = labels.FromStrings(model.MetricNameLabel, "old", "n", string(rune('a'+i)))
	}
	return e
}

func goldenDelete() Delete {
	return Delete{ID: "delete-1", Mint: -5, Maxt: base + 100, Selectors: [][]*labels.Matcher{
		{labels.MustNewMatcher(labels.MatchEqual, "a", "b"), labels.MustNewMatcher(labels.MatchNotEqual, "c", "")},
		{labels.MustNewMatcher(labels.MatchRegexp, "d", "e.*|f"), labels.MustNewMatcher(labels.MatchNotRegexp, "g", "[h-j]+")},
	}}
}

func goldenDigest() Digest {
	return Digest{ID: "digest-1", Hurry: true, Ranges: []TimeRange{{base, base + 7_199_999}, {math.MinInt64, math.MaxInt64}}}
}

func goldenShipped() Shipped {
	return Shipped{Positions: map[string]uint64{"a": 1 << 40, "b": 0}, Forget: []string{"c", "ü"}}
}

func goldenImport() Import {
	return Import{ID: "00000000000000aa", Blocks: []storage.BlockFiles{
		{ULID: ulid.MustParse("01HZZZZZZZZZZZZZZZZZZZZZZZ"), MinTime: -base, MaxTime: base, Files: []storage.File{
			{Path: "chunks/000001", Size: 1 << 33, CRC32C: 0xdeadbeef}, {Path: "index", Size: 77, CRC32C: 1}, {Path: "meta.json", Size: 300}, {Path: "tombstones", Size: 9, CRC32C: 2},
		}},
		{ULID: ulid.MustParse("01J00000000000000000000000"), MinTime: 5, MaxTime: 6, Files: []storage.File{{Path: "index"}}},
	}}
}

func goldenSettings() Settings {
	return Settings{OutOfOrderWindow: 90 * time.Minute, MaxExemplars: 1000, ClusterID: "c-1", MinVersion: 1}
}

func TestGoldenAppend(t *testing.T) {
	for name, want := range map[string]*appendEntry{"append": goldenAppend(), "append-fresh": goldenFresh(), "append-empty": {}} {
		k, p, err := open(golden(t, name, want.encode()))
		require.NoError(t, err)
		require.Equal(t, kindAppend, k)
		var got appendEntry
		require.NoError(t, got.decode(p))
		require.Equal(t, entryText(want), entryText(&got), name)
		require.NoError(t, got.decode(p), "the memory is used again")
		require.Equal(t, entryText(want), entryText(&got), name)
	}
}

func TestGoldenOtherKinds(t *testing.T) {
	payload := func(name string, b []byte, want kind) []byte {
		k, p, err := open(golden(t, name, b))
		require.NoError(t, err)
		require.Equal(t, want, k, name)
		return p
	}
	d, err := decodeDelete(payload("delete", EncodeDelete(goldenDelete()), kindDelete))
	require.NoError(t, err)
	want := goldenDelete()
	require.Equal(t, selectorText(want), selectorText(d))
	d.Selectors, want.Selectors = nil, nil
	require.Equal(t, want, d)

	id, err := decodeClean(payload("clean", EncodeClean("clean-1"), kindClean))
	require.NoError(t, err)
	require.Equal(t, "clean-1", id)

	c, err := decodeCutoff(payload("cutoff", EncodeCutoff(base), kindCutoff))
	require.NoError(t, err)
	require.Equal(t, base, c)
	c, err = decodeCutoff(payload("cutoff-none", EncodeCutoff(math.MinInt64), kindCutoff))
	require.NoError(t, err)
	require.Equal(t, int64(math.MinInt64), c)

	s, err := decodeUserSnapshot(payload("snapshot", EncodeUserSnapshot(UserSnapshot{"snapshot-1", "20260101T000000Z-1"}), kindUserSnapshot))
	require.NoError(t, err)
	require.Equal(t, UserSnapshot{"snapshot-1", "20260101T000000Z-1"}, s)

	dig, err := decodeDigest(payload("digest", EncodeDigest(goldenDigest()), kindDigest))
	require.NoError(t, err)
	require.Equal(t, goldenDigest(), dig)
	dig, err = decodeDigest(payload("digest-state", EncodeDigest(Digest{ID: "digest-2"}), kindDigest))
	require.NoError(t, err)
	require.Equal(t, Digest{ID: "digest-2"}, dig)

	sh, err := decodeShipped(payload("shipped", EncodeShipped(goldenShipped()), kindShipped))
	require.NoError(t, err)
	require.Equal(t, goldenShipped(), sh)
	sh, err = decodeShipped(payload("shipped-empty", EncodeShipped(Shipped{}), kindShipped))
	require.NoError(t, err)
	require.Equal(t, Shipped{}, sh)

	imp, err := decodeImport(payload("import", EncodeImport(goldenImport()), kindImport))
	require.NoError(t, err)
	require.Equal(t, goldenImport(), imp)

	require.Empty(t, payload("noop", EncodeNoop(), kindNoop))

	set, err := decodeSettings(payload("settings", EncodeSettings(goldenSettings()), kindSettings))
	require.NoError(t, err)
	require.Equal(t, goldenSettings(), set)
}

func goldenResults() map[string]Result {
	return map[string]Result{
		"result":         {Index: 1 << 40, Refused: []Refusal{{0, TooOld}, {7, OutOfOrder}, {300, Duplicate}, {1 << 31, Invalid}}},
		"result-ok":      {Index: 7},
		"result-unknown": {Index: 8, Unknown: true},
		"result-error":   {Index: 9, Err: "no"},
	}
}

func TestGoldenResult(t *testing.T) {
	for name, want := range goldenResults() {
		b, err := want.MarshalBinary()
		require.NoError(t, err)
		b = golden(t, name, b)
		got := Result{Err: "left over", Refused: []Refusal{{1, 1}}}
		require.NoError(t, got.UnmarshalBinary(b))
		require.Equal(t, want, got, name)
		for i := range b {
			require.Error(t, new(Result).UnmarshalBinary(b[:i]), "%s cut at %d", name, i)
		}
		require.Error(t, new(Result).UnmarshalBinary(append(b, 0)), "%s and a byte", name)
		b[0]++
		require.Error(t, new(Result).UnmarshalBinary(b), "%s of a newer version", name)
	}
}

// The numbers of reasons travel between versions.
func TestGoldenReasons(t *testing.T) {
	for i, want := range []string{"accepted", "too_old", "out_of_order", "duplicate", "out_of_bounds", "invalid", "invalid"} {
		require.Equal(t, want, Reason(i).String())
		require.Equal(t, i == 0, Reason(i).Err() == nil)
	}
}

// entryText makes entries comparable: NaNs, and memory used again.
func entryText(e *appendEntry) []string {
	out := []string{}
	for i, s := range []*samples{&e.known, &e.fresh} {
		_ = each(s, func(ref chunkRef, x sample) error {
			out = append(out, sampleLine(i, ref, x))
			return nil
		})
		for _, x := range s.exemplars {
			out = append(out, exemplarLine(i, x))
		}
	}
	for _, s := range e.series {
		out = append(out, "series "+s.Labels.String())
	}
	for _, m := range e.metadata {
		out = append(out, strings.Join([]string{"metadata", m.family, string(m.Type), m.Unit, m.Help}, "|"))
	}
	return out
}
