// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"pgregory.net/rapid"

	"github.com/deucaliondb/deucalion/storage"
)

// step draws the next entry.
func (w *twin) step() {
	switch k := rapid.IntRange(0, 99).Draw(w.T, "kind"); {
	case k < 5:
		w.stepDelete()
	case k < 8:
		w.stepCutoff()
	case k < 11:
		w.stepSettings()
	case k < 13:
		w.n++
		w.apply(EncodeClean(fmt.Sprint("clean-", w.n)), nil, false)
	case k < 14:
		w.apply(EncodeNoop(), nil, false)
	case k < 16:
		w.stepShipped()
	case k < 20:
		w.stepImport()
	case k < 26 && w.previous != nil:
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
	w.model.next(w, func(m *twinModel) { m.delete(d) })
	w.apply(e, nil, false)
	if w.chance(20, "retry") { // must have no effect
		w.apply(e, nil, false)
	}
}

func (w *twin) stepCutoff() {
	t := storage.NoTime // only drops idle series
	if w.chance(50, "retention") {
		t = w.now - 400*minute - rapid.Int64Range(0, 100*minute).Draw(w.T, "cutoff")
	}
	w.model.next(w, func(m *twinModel) { m.retain(t) })
	w.apply(EncodeCutoff(t), nil, false)
}

func (w *twin) stepSettings() {
	w.settings(Settings{
		OutOfOrderWindow: time.Duration(rapid.SampledFrom([]int{0, 30, 180}).Draw(w.T, "window")) * time.Minute,
		MaxExemplars:     rapid.SampledFrom([]int64{0, 20, 50}).Draw(w.T, "exemplars"),
		ClusterID:        rapid.SampledFrom([]string{"", "twin", "other"}).Draw(w.T, "cluster"),
	})
}

func (w *twin) settings(s Settings) {
	w.model.next(w, func(m *twinModel) { m.set(s) })
	w.apply(EncodeSettings(s), nil, false)
}

func (w *twin) stepShipped() {
	s := Shipped{Positions: map[string]uint64{}}
	for range rapid.IntRange(0, 2).Draw(w.T, "remotes") {
		s.Positions[fmt.Sprint("remote-", rapid.IntRange(0, 2).Draw(w.T, "remote"))] = rapid.Uint64Range(0, 1000).Draw(w.T, "position")
	}
	if w.chance(20, "forget") {
		s.Forget = []string{fmt.Sprint("remote-", rapid.IntRange(0, 2).Draw(w.T, "forgotten"))}
	}
	w.model.next(w, func(m *twinModel) { m.ship(s) })
	w.apply(EncodeShipped(s), nil, false)
}

// stepAppend encodes samples as a proposer with an old copy of the series table
// might: some series by id, some with labels.
func (w *twin) stepAppend(gs []genSample) {
	e, unknown := w.entry(gs, 15)
	if !unknown && w.chance(3, "id of no series") {
		id := rapid.SampledFrom([]uint64{0, w.model.nextID, w.model.nextID + 5000}).Draw(w.T, "id")
		e.known.add(refOf(id), w.drawSample(0, w.now))
		unknown = true
		w.happened["id of no series named"]++
	}
	w.addExtras(e)
	if unknown {
		w.apply(e.encode(), nil, true) // refused as a whole
		w.model.forget()
		if !w.chance(70, "send again") {
			return
		}
		e, _ = w.entry(gs, 100)
		w.happened["sent again with labels"]++
	}
	var want []Refusal
	w.model.next(w, func(m *twinModel) { want = m.append(e) })
	w.apply(e.encode(), want, false)
	w.model.learn()
}

// entry encodes samples, withLabels percent of them of series that come with their labels.
func (w *twin) entry(gs []genSample, withLabels int) (e *appendEntry, unknown bool) {
	e = &appendEntry{}
	positions := map[int]int{}
	for _, g := range gs {
		if id := w.model.ids[g.series]; id != 0 && !w.chance(withLabels, "with labels") {
			if w.model.table[g.series] == nil || w.model.table[g.series].id != id {
				unknown = true
				w.happened["dropped id named"]++
			}
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
	return e, unknown
}
