// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"pgregory.net/rapid"

	"github.com/deucaliondb/deucalion/storage"
)

const (
	minute    = int64(60_000)
	numSeries = 24
)

// twinModel is what the state machine must be: a map.
type twinModel struct {
	samples map[int]map[int64]string
	lastT   map[int]int64
	ids     map[int]uint64 // as a proposer knows them, perhaps dropped
	maxT    int64
	cutoff  int64
	window  time.Duration
}

func newModel() *twinModel {
	return &twinModel{samples: map[int]map[int64]string{}, lastT: map[int]int64{}, ids: map[int]uint64{}, maxT: storage.NoTime, cutoff: storage.NoTime}
}

// genSample is a drawn sample.
type genSample struct {
	series int
	sample storage.Sample
	known  bool
}

func seriesLabels(i int) labels.Labels {
	return labels.FromStrings(model.MetricNameLabel, fmt.Sprintf("m%d", i%4), "g", fmt.Sprint(i%3), "i", fmt.Sprint(i))
}

func seriesNumber(ls labels.Labels) int {
	n, _ := strconv.Atoi(ls.Get("i"))
	return n
}

func refOf(id uint64) chunks.HeadSeriesRef { return chunks.HeadSeriesRef(id) }

func refSeries(pos int, ls labels.Labels) record.RefSeries {
	return record.RefSeries{Ref: chunks.HeadSeriesRef(pos), Labels: ls}
}

// drawSamples draws one request: at most one sample a series and time, sorted as
// a Batch does.
func (w *twin) drawSamples() []genSample {
	type key struct {
		series int
		t      int64
	}
	seen := map[key]bool{}
	var out []genSample
	for range rapid.IntRange(5, 60).Draw(w.T, "samples") {
		i := rapid.IntRange(0, numSeries-1).Draw(w.T, "series")
		t := w.now - int64(i%5)*20*minute // some series lag behind
		switch rapid.IntRange(0, 7).Draw(w.T, "when") {
		case 0:
			t -= rapid.Int64Range(0, 200*minute).Draw(w.T, "late")
		case 1:
			t = t / (5 * minute) * (5 * minute) // likely to collide
		case 2:
			t += rapid.Int64Range(0, minute).Draw(w.T, "jitter")
		}
		if k := (key{i, t}); !seen[k] {
			seen[k] = true
			out = append(out, genSample{series: i, sample: w.drawSample(i, t)})
		}
	}
	slices.SortFunc(out, func(a, b genSample) int {
		if a.series != b.series {
			return a.series - b.series
		}
		return int(a.sample.T - b.sample.T)
	})
	return out
}

func (w *twin) drawSample(series int, t int64) storage.Sample {
	x := storage.Sample{T: t}
	v := rapid.Int64Range(0, 4).Draw(w.T, "value")
	if rapid.IntRange(0, 19).Draw(w.T, "stale") == 0 {
		x.V = math.Float64frombits(value.StaleNaN)
		return x
	}
	kind := series % 8
	if rapid.IntRange(0, 29).Draw(w.T, "change type") == 0 {
		kind = int(v)
	}
	switch kind {
	case 3:
		x.H = tsdbutil.GenerateTestHistogram(v)
	case 4:
		x.FH = tsdbutil.GenerateTestFloatHistogram(v)
	case 5:
		x.H = tsdbutil.GenerateTestCustomBucketsHistogram(v)
	case 6:
		x.FH = tsdbutil.GenerateTestCustomBucketsFloatHistogram(v)
	case 7:
		x.H = tsdbutil.GenerateTestGaugeHistogram(v)
		if v == 2 {
			x.H = &histogram.Histogram{Count: 3, Sum: 1, PositiveSpans: []histogram.Span{{Offset: 5, Length: 2}}, PositiveBuckets: []int64{2, -1}}
		}
	default:
		x.V = float64(v)
	}
	return x
}

// addExtras puts some exemplars and metadata into an entry.
func (w *twin) addExtras(e *appendEntry) {
	if len(e.known.floats) > 0 && w.chance(40, "exemplar") {
		e.known.exemplars = append(e.known.exemplars, record.RefExemplar{
			Ref: e.known.floats[0].Ref, T: w.now, V: 1, Labels: labels.FromStrings("trace", fmt.Sprint(rapid.IntRange(0, 5).Draw(w.T, "trace"))),
		})
	}
	if len(e.fresh.floats) > 0 && w.chance(40, "exemplar") {
		e.fresh.exemplars = append(e.fresh.exemplars, record.RefExemplar{Ref: e.fresh.floats[0].Ref, T: w.now, V: 2})
	}
	if w.chance(10, "metadata") {
		e.metadata = append(e.metadata, familyMetadata{fmt.Sprint("m", rapid.IntRange(0, 3).Draw(w.T, "family")), metadata.Metadata{
			Type: "counter", Help: fmt.Sprint("help ", rapid.IntRange(0, 12).Draw(w.T, "help")),
		}})
	}
}

// verdicts applies an append and returns what must be refused.
func (m *twinModel) verdicts(e *appendEntry, series func(known bool, ref uint64) int) (out []Refusal) {
	type pending struct {
		pos    uint32
		series int
		x      storage.Sample
	}
	var all []pending
	one := func(known bool) func(chunks.HeadSeriesRef, storage.Sample) error {
		return func(ref chunks.HeadSeriesRef, x storage.Sample) error {
			all = append(all, pending{uint32(len(all)), series(known, uint64(ref)), x})
			return nil
		}
	}
	_ = each(&e.known, one(true))
	_ = each(&e.fresh, one(false))
	types := map[valueKind]bool{}
	for _, p := range all {
		types[kindOf(p.x)] = true
	}
	if len(types) > 1 { // decided in the order of time
		slices.SortStableFunc(all, func(a, b pending) int { return int(a.x.T - b.x.T) })
	}
	for _, p := range all {
		if r := m.sample(p.series, p.x); r != Accepted {
			out = append(out, Refusal{p.pos, r})
		}
	}
	slices.SortFunc(out, func(a, b Refusal) int { return int(a.Pos) - int(b.Pos) })
	return out
}

func (m *twinModel) sample(s int, x storage.Sample) Reason {
	floor := m.cutoff
	if m.maxT != storage.NoTime {
		floor = max(floor, m.maxT-max(m.window.Milliseconds(), 60*minute))
	}
	last, ok := m.lastT[s]
	switch old, found := m.samples[s][x.T]; {
	case x.T < floor:
		return TooOld
	case found && old == text(x):
		return Accepted
	case found:
		return Duplicate
	case ok && x.T <= last && m.window == 0:
		return OutOfOrder
	}
	if m.samples[s] == nil {
		m.samples[s] = map[int64]string{}
	}
	m.samples[s][x.T] = text(x)
	if !ok || x.T > last {
		m.lastT[s] = x.T
	}
	m.maxT = max(m.maxT, x.T)
	return Accepted
}

func (m *twinModel) delete(d Delete) {
	for s, ts := range m.samples {
		if !slices.ContainsFunc(d.Selectors, func(ms []*labels.Matcher) bool {
			return !slices.ContainsFunc(ms, func(x *labels.Matcher) bool { return !x.Matches(seriesLabels(s).Get(x.Name)) })
		}) {
			continue
		}
		for t := range ts {
			if d.Mint <= t && t <= d.Maxt {
				delete(ts, t)
			}
		}
	}
}

// learn and forget keep the proposer's copy of the series table.
func (m *twinModel) learn(t *table) {
	for i := range numSeries {
		if s := t.byLabels(seriesLabels(i)); s != nil {
			m.ids[i] = s.id
		}
	}
}

func (m *twinModel) forget(t *table) {
	for i, id := range m.ids {
		if t.byID(id) == nil {
			delete(m.ids, i)
		}
	}
}

func (m *twinModel) seriesOf(id uint64) int {
	for i, x := range m.ids {
		if x == id {
			return i
		}
	}
	return -1
}

func (m *twinModel) dump(mint, maxt int64) string {
	var sb strings.Builder
	ids := slices.SortedFunc(maps.Keys(m.samples), func(a, b int) int { return labels.Compare(seriesLabels(a), seriesLabels(b)) })
	for _, s := range ids {
		line := ""
		for _, t := range slices.Sorted(maps.Keys(m.samples[s])) {
			if t >= max(mint, m.cutoff) && t <= maxt {
				line += fmt.Sprintf(" %d=%s", t, m.samples[s][t])
			}
		}
		if line != "" {
			fmt.Fprintf(&sb, "%s:%s\n", seriesLabels(s), line)
		}
	}
	return sb.String()
}

func (m *twinModel) labels(mint, maxt int64, name string) (names, values []string) {
	n, v := map[string]bool{}, map[string]bool{}
	for s, ts := range m.samples {
		for t := range ts {
			if t >= max(mint, m.cutoff) && t <= maxt {
				v[seriesLabels(s).Get(name)] = true
				seriesLabels(s).Range(func(l labels.Label) { n[l.Name] = true })
			}
		}
	}
	return slices.Sorted(maps.Keys(n)), slices.Sorted(maps.Keys(v))
}

// text is a value without what may differ between layouts.
func text(x storage.Sample) string {
	hint := func(h histogram.CounterResetHint) string {
		if h == histogram.GaugeType {
			return "gauge"
		}
		return ""
	}
	switch {
	case isStale(x):
		return "stale"
	case x.H != nil:
		return "I" + hint(x.H.CounterResetHint) + canonical(x.H).String()
	case x.FH != nil:
		return "F" + hint(x.FH.CounterResetHint) + canonicalFloat(x.FH).String()
	default:
		return fmt.Sprintf("%x", math.Float64bits(x.V))
	}
}

func exemplarText(e exemplar.Exemplar) string { return fmt.Sprint(e.Labels, e.Ts, e.Value) }
