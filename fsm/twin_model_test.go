// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/deucaliondb/deucalion/storage"
)

const (
	minute    = int64(60_000)
	numSeries = 24
)

// twinModel is what the state machine must be: maps.
type twinModel struct {
	lastT       map[int]int64
	table       map[int]*modelSeries
	nextID      uint64
	dropHorizon int64
	ids         map[int]uint64 // as a proposer knows them, perhaps dropped
	maxT        int64
	cutoff      int64
	settings    Settings
	exemplars   []modelExemplar // oldest first
	metadata    map[string][]metadata.Metadata
	shipped     map[string]uint64
	happened    map[string]int
	imported    map[[2]int64]bool // series and time of what came by an import

	// mu protects the following, which watchers read.
	mu      sync.RWMutex
	index   int64 // of the entry that changes it
	samples map[int]map[int64]string
	lives   map[int]map[int64][]life
}

// modelSeries is a row of the series table.
type modelSeries struct {
	id    uint64
	lastT int64
}

// life tells from which entry on a sample was there, and from which on no more.
type life struct {
	text     string
	from, to int64
}

type modelExemplar struct {
	series int
	exemplar.Exemplar
}

func newModel() *twinModel {
	return &twinModel{
		samples: map[int]map[int64]string{}, lives: map[int]map[int64][]life{}, lastT: map[int]int64{}, table: map[int]*modelSeries{},
		ids: map[int]uint64{}, nextID: 1, dropHorizon: storage.NoTime, maxT: storage.NoTime, cutoff: storage.NoTime,
		metadata: map[string][]metadata.Metadata{}, shipped: map[string]uint64{}, imported: map[[2]int64]bool{},
	}
}

// next changes the model by the entry that w is about to apply.
func (m *twinModel) next(w *twin, change func(*twinModel)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index = int64(len(w.log) + 1)
	change(m)
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

// append applies an append entry and returns what must be refused.
func (m *twinModel) append(e *appendEntry) (out []Refusal) {
	type pending struct {
		pos    uint32
		series int
		x      storage.Sample
	}
	var all []pending
	one := func(known bool) func(chunks.HeadSeriesRef, storage.Sample) error {
		return func(ref chunks.HeadSeriesRef, x storage.Sample) error {
			all = append(all, pending{uint32(len(all)), m.seriesOf(e, known, ref), x})
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
	for _, x := range e.known.exemplars {
		m.exemplar(m.seriesOf(e, true, x.Ref), x)
	}
	for _, x := range e.fresh.exemplars {
		m.exemplar(m.seriesOf(e, false, x.Ref), x)
	}
	for _, x := range e.metadata {
		m.describe(x)
	}
	return out
}

// seriesOf returns -1 for a series that is in no table.
func (m *twinModel) seriesOf(e *appendEntry, known bool, ref chunks.HeadSeriesRef) int {
	if !known {
		return seriesNumber(e.series[ref].Labels)
	}
	for i, s := range m.table {
		if s.id == uint64(ref) {
			return i
		}
	}
	return -1
}

func (m *twinModel) floor() int64 {
	if m.maxT == storage.NoTime {
		return m.cutoff
	}
	return max(m.cutoff, m.maxT-max(m.settings.OutOfOrderWindow.Milliseconds(), 60*minute))
}

func (m *twinModel) sample(s int, x storage.Sample) Reason {
	last, ok := m.lastT[s]
	switch old, found := m.samples[s][x.T]; {
	case x.T < m.floor():
		return TooOld
	case found && old == text(x):
		return Accepted
	case found:
		if m.imported[[2]int64{int64(s), x.T}] {
			m.happened["write refused for an imported sample"]++
		}
		return Duplicate
	case ok && x.T <= last && m.settings.OutOfOrderWindow == 0:
		return OutOfOrder
	}
	if m.samples[s] == nil {
		m.samples[s], m.lives[s] = map[int64]string{}, map[int64][]life{}
	}
	m.samples[s][x.T] = text(x)
	m.lives[s][x.T] = append(m.lives[s][x.T], life{text(x), m.index, math.MaxInt64})
	if !ok || x.T > last {
		m.lastT[s] = x.T
	}
	m.maxT = max(m.maxT, x.T)
	row := m.table[s]
	if row == nil { // it may be an old one that was dropped: its id is never used again
		if ok {
			m.happened["dropped series written again"]++
		}
		row = &modelSeries{m.nextID, m.dropHorizon}
		m.table[s] = row
		m.nextID++
	}
	row.lastT = max(row.lastT, x.T)
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
				m.remove(s, t)
			}
		}
	}
}

func (m *twinModel) remove(s int, t int64) {
	if k := ([2]int64{int64(s), t}); m.imported[k] {
		m.happened["imported sample deleted"]++
		delete(m.imported, k)
	}
	delete(m.samples[s], t)
	ls := m.lives[s][t]
	ls[len(ls)-1].to = m.index
}

// retain removes what is below a cutoff, and drops idle series.
func (m *twinModel) retain(cutoff int64) {
	m.cutoff = max(m.cutoff, cutoff)
	for s, ts := range m.samples {
		for t := range ts {
			if t < m.cutoff {
				m.remove(s, t)
			}
		}
	}
	floor := m.floor()
	for s, row := range m.table {
		if row.lastT < floor {
			delete(m.table, s)
			m.dropHorizon = max(m.dropHorizon, floor-1)
			m.happened["series dropped"]++
		}
	}
}

func (m *twinModel) set(s Settings) {
	if m.settings.ClusterID != "" {
		s.ClusterID = m.settings.ClusterID // never changes
	}
	m.settings = s
	if m.maxT != storage.NoTime && m.floor() <= m.dropHorizon {
		m.happened["window widened after a drop"]++
	}
	m.exemplars = m.exemplars[max(0, len(m.exemplars)-int(s.MaxExemplars)):]
}

// exemplar adds an exemplar as Prometheus does: not older than the newest of its series,
// and not the same again.
func (m *twinModel) exemplar(s int, r record.RefExemplar) {
	switch {
	case m.table[s] == nil:
		m.happened["exemplar of a dropped series"]++
		return
	case m.settings.MaxExemplars == 0 || len(r.Labels.Get("trace"))+len("trace") > exemplar.ExemplarMaxLabelSetLength:
		return
	}
	x := exemplar.Exemplar{Labels: r.Labels, Value: r.V, Ts: r.T, HasTs: true}
	for _, old := range slices.Backward(m.exemplars) {
		if old.series != s {
			continue
		}
		if c := cmp.Or(cmp.Compare(x.Ts, old.Ts), cmp.Compare(x.Value, old.Value), cmp.Compare(x.Labels.Hash(), old.Labels.Hash())); c <= 0 {
			return
		}
		break
	}
	m.exemplars = append(m.exemplars, modelExemplar{s, x})
	m.exemplars = m.exemplars[max(0, len(m.exemplars)-int(m.settings.MaxExemplars)):]
}

func (m *twinModel) describe(x familyMetadata) {
	old := m.metadata[x.family]
	if !slices.Contains(old, x.Metadata) {
		old = append(slices.Clone(old), x.Metadata)
		m.metadata[x.family] = old[max(0, len(old)-maxPerFamily):]
	}
}

func (m *twinModel) ship(s Shipped) {
	for _, name := range s.Forget {
		delete(m.shipped, name)
	}
	for name, i := range s.Positions {
		m.shipped[name] = max(m.shipped[name], i)
	}
}

// learn and forget keep the proposer's copy of the series table.
func (m *twinModel) learn() {
	for i, s := range m.table {
		m.ids[i] = s.id
	}
}

func (m *twinModel) forget() {
	for i := range m.ids {
		if m.table[i] == nil {
			delete(m.ids, i)
		}
	}
}

func (m *twinModel) exemplarDump() string {
	lines := map[int]string{}
	for _, x := range m.exemplars {
		if lines[x.series] == "" {
			lines[x.series] = seriesLabels(x.series).String()
		}
		lines[x.series] += " " + exemplarText(x.Exemplar)
	}
	return strings.Join(slices.Sorted(maps.Values(lines)), "\n")
}

func (m *twinModel) tableDump() string {
	var rows []string
	for i, s := range m.table {
		rows = append(rows, fmt.Sprintf("%06d %d %s", s.id, s.lastT, seriesLabels(i)))
	}
	slices.Sort(rows)
	return fmt.Sprintf("next %d, dropped up to %d\n%s", m.nextID, m.dropHorizon, strings.Join(rows, "\n"))
}

func (m *twinModel) dump(mint, maxt int64) string {
	var sb strings.Builder
	ids := slices.SortedFunc(maps.Keys(m.samples), func(a, b int) int { return labels.Compare(seriesLabels(a), seriesLabels(b)) })
	for _, s := range ids {
		line := ""
		for _, t := range slices.Sorted(maps.Keys(m.samples[s])) {
			if t >= mint && t <= maxt {
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
			if t >= mint && t <= maxt {
				v[seriesLabels(s).Get(name)] = true
				seriesLabels(s).Range(func(l labels.Label) { n[l.Name] = true })
			}
		}
	}
	return slices.Sorted(maps.Keys(n)), slices.Sorted(maps.Keys(v))
}

// series lists the label i of the series that match and have samples.
func (m *twinModel) series(mint, maxt int64, x *labels.Matcher) (out []string) {
	for s, ts := range m.samples {
		for t := range ts {
			if t >= mint && t <= maxt && x.Matches(seriesLabels(s).Get(x.Name)) {
				out = append(out, seriesLabels(s).Get("i"))
				break
			}
		}
	}
	slices.Sort(out)
	return out
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
