// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"fmt"
	"slices"

	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/encoding/protowire"
)

// v2 walks an io.prometheus.write.v2.Request. Fields may come in any order, so all symbols are collected first.
func (d *decoder) v2(body []byte) error {
	c := cursor{rest: body}
	for c.next() {
		if c.num == 4 || c.num == 5 {
			if err := d.spend(itemCost); err != nil {
				return err
			}
		}
		switch {
		case c.num == 4 && c.want(protowire.BytesType):
			d.symbols = append(d.symbols, c.raw)
		case c.num == 5 && c.want(protowire.BytesType):
			d.series = append(d.series, c.raw)
		}
	}
	if c.err != nil {
		return c.err
	}
	if len(d.symbols) > 0 && len(d.symbols[0]) > 0 {
		return fmt.Errorf("%w: the first symbol must be the empty string", ErrMalformed)
	}
	d.told = slices.Grow(d.told[:0], len(d.symbols))[:len(d.symbols)]
	clear(d.told)
	for _, b := range d.series {
		if err := d.seriesV2(b); err != nil {
			return err
		}
	}
	return nil
}

// seriesV2 takes one TimeSeries of version 2.
func (d *decoder) seriesV2(b []byte) error {
	samples, m, err := d.collectPartsV2(b)
	if err != nil {
		return err
	}
	ok, err := d.enterV2(samples, m)
	if err != nil {
		return err
	}
	for _, p := range d.parts {
		switch p.num {
		case 2:
			err = d.float(p.raw, true, ok)
		case 3:
			err = d.histogramV2(p.raw, ok)
		case 4:
			err = d.exemplarV2(p.raw, ok)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// enterV2 resolves the references of the series and makes it current. false: it is refused, and why is noted.
func (d *decoder) enterV2(samples int, m metadataV2) (bool, error) {
	if err := d.keyV2(); err != nil {
		d.refused.add(reasonLabels, samples, "%v", err)
		return false, nil
	}
	if err := d.checkMetadata(m); err != nil {
		d.refused.add(reasonLabels, samples, "parsing metadata for series %s: %v", nameInKey(d.key), err)
		return false, nil
	}
	if d.typeAndUnit {
		if err := d.describe(m); err != nil {
			d.refused.add(reasonLabels, samples, "%v", err)
			return false, nil
		}
	}
	if samples == 0 {
		d.refused.add(reasonNoSamples, 1, "TimeSeries must contain at least one sample or histogram for series %s", nameInKey(d.key))
		return false, nil
	}
	ok, err := d.enter(d.key, samples)
	if ok && err == nil {
		err = d.metadataV2(m)
	}
	return ok, err
}

// collectPartsV2 notes in d.parts what the series holds, in d.refs its label references, and counts its samples.
func (d *decoder) collectPartsV2(b []byte) (samples int, m metadataV2, err error) {
	d.parts, d.refs = d.parts[:0], d.refs[:0]
	c := cursor{rest: b}
	for c.next() {
		if c.num == 1 && c.typ == protowire.VarintType {
			if err := d.spend(refCost); err != nil {
				return 0, m, err
			}
			d.refs = append(d.refs, uint32(c.val))
			continue
		}
		if c.num > 5 || !c.want(protowire.BytesType) {
			continue
		}
		switch c.num {
		case 1:
			if err = d.spend(refCost * len(c.raw)); err == nil {
				d.refs, err = unpack(d.refs, c.raw)
			}
		case 5:
			err = m.merge(c.raw)
		default:
			err = d.partV2(c.num, c.raw)
			if c.num != 4 {
				samples++
			}
		}
		if err != nil {
			return 0, m, err
		}
	}
	return samples, m, c.err
}

// partV2 notes a sample, a histogram or an exemplar.
func (d *decoder) partV2(num protowire.Number, raw []byte) error {
	cost := itemCost
	switch num {
	case 3:
		cost += histogramTimes * len(raw)
	case 4:
		cost += exemplarTimes * len(raw)
	}
	if err := d.spend(cost); err != nil {
		return err
	}
	d.parts = append(d.parts, part{num, raw})
	return nil
}

// unpack appends the packed varints in b to refs. References of one and two bytes, up to 16383, are what there is.
func unpack(refs []uint32, b []byte) ([]uint32, error) {
	refs = slices.Grow(refs, len(b))
	for len(b) > 0 {
		if b[0] < 0x80 {
			refs, b = append(refs, uint32(b[0])), b[1:]
			continue
		}
		if len(b) > 1 && b[1] < 0x80 {
			refs, b = append(refs, uint32(b[0]&0x7f)|uint32(b[1])<<7), b[2:]
			continue
		}
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return refs, fmt.Errorf("%w: label references: %w", ErrMalformed, protowire.ParseError(n))
		}
		refs, b = append(refs, uint32(v)), b[n:]
	}
	return refs, nil
}

// keyV2 builds in d.key the key of the series that d.refs name. It stops at the limit: a reference costs the sender
// two bytes, what it refers to may be megabytes.
func (d *decoder) keyV2() error {
	key, symbols, refs := d.key[:0], d.symbols, d.refs
	if err := d.checkRefs(refs); err != nil {
		return fmt.Errorf("parsing labels for series %v: %w", refs[:min(len(refs), 32)], err)
	}
	for ; len(refs) > 1; refs = refs[2:] {
		name, value := symbols[refs[0]], symbols[refs[1]]
		if len(key)+len(name)+len(value) > d.maxLabel {
			return fmt.Errorf(labelsTooLong, nameInKey(key), d.maxLabel)
		}
		key = appendLabel(key, name, value)
	}
	d.key = key
	return nil
}

// checkRefs fails unless refs are pairs of references into the symbol table.
func (d *decoder) checkRefs(refs []uint32) error {
	if len(refs)%2 != 0 {
		return fmt.Errorf("%w: invalid labelRefs length %d", errSymbols, len(refs))
	}
	for i := 0; i < len(refs); i += 2 {
		if uint64(max(refs[i], refs[i+1])) >= uint64(len(d.symbols)) {
			return fmt.Errorf("%w: labelRefs %d (name) = %d (value) outside of symbols table (size %d)",
				errSymbols, refs[i], refs[i+1], len(d.symbols))
		}
	}
	return nil
}

// metricName returns the reference to the value of the name label among d.refs.
func (d *decoder) metricName() (ref uint32, ok bool) {
	for i := 0; i < len(d.refs); i += 2 {
		if string(d.symbols[d.refs[i]]) == model.MetricNameLabel {
			return d.refs[i+1], true
		}
	}
	return 0, false
}
