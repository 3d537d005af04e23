// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// v1 walks a prometheus.WriteRequest.
func (d *decoder) v1(body []byte) error {
	c := cursor{rest: body}
	for c.next() {
		var err error
		switch {
		case c.num == 1 && c.want(protowire.BytesType):
			err = d.seriesV1(c.raw)
		case c.num == 3 && c.want(protowire.BytesType):
			err = d.metadataV1(c.raw)
		}
		if err != nil {
			return err
		}
	}
	return c.err
}

// seriesV1 takes one TimeSeries. Senders write its labels first, so its leading bytes are the key as they stand.
func (d *decoder) seriesV1(b []byte) error {
	key, tail, err := leadingLabels(b)
	if err != nil {
		return err
	}
	samples, moreLabels, err := d.collectParts(tail)
	if err != nil {
		return err
	}
	if moreLabels {
		if key, err = d.gatherLabels(b); err != nil {
			return err
		}
	}
	if len(d.parts) == 0 {
		return checkLabels(key) // brings nothing, which is no error in version 1
	}
	if err := d.spend(itemCost); err != nil {
		return err
	}
	ok, err := d.enter(key, samples)
	if err != nil {
		return err
	}
	for _, p := range d.parts {
		switch p.num {
		case 2:
			err = d.float(p.raw, false, ok)
		case 3:
			err = d.exemplarV1(p.raw, ok)
		case 4:
			err = d.histogramV1(p.raw, ok)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// leadingLabels splits a TimeSeries behind the run of label fields that it starts with.
func leadingLabels(b []byte) (key, tail []byte, err error) {
	i := 0
	for i < len(b) && b[i] == 0x0a {
		size, n := uvarint(b[i+1:])
		if n < 0 || size > uint64(len(b)-i-1-n) {
			return nil, nil, fmt.Errorf("%w: label is cut short", ErrMalformed)
		}
		i += 1 + n + int(size)
	}
	return b[:i:i], b[i:], nil
}

// collectParts notes in d.parts what a TimeSeries holds behind its leading labels, counts its samples, and tells
// whether there are label fields among it.
func (d *decoder) collectParts(b []byte) (samples int, moreLabels bool, err error) {
	d.parts = d.parts[:0]
	c := cursor{rest: b}
	for c.next() {
		if c.num > 4 || !c.want(protowire.BytesType) {
			continue
		}
		if c.num == 1 {
			moreLabels = true
			continue
		}
		cost := itemCost
		switch c.num {
		case 3:
			cost += exemplarTimes * len(c.raw)
		case 4:
			cost += histogramTimes * len(c.raw)
		}
		if err := d.spend(cost); err != nil {
			return 0, false, err
		}
		d.parts = append(d.parts, part{c.num, c.raw})
		if c.num != 3 {
			samples++
		}
	}
	return samples, moreLabels, c.err
}

// gatherLabels builds the key of a TimeSeries whose label fields do not stand together.
func (d *decoder) gatherLabels(b []byte) ([]byte, error) {
	d.key = d.key[:0]
	c := cursor{rest: b}
	for c.next() {
		if c.num == 1 {
			d.key = protowire.AppendBytes(append(d.key, 0x0a), c.raw)
		}
	}
	return d.key, c.err
}
