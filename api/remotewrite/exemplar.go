// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"fmt"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// maxExemplarBytes bounds the labels of an exemplar before they are built: 128 characters of at most 4 bytes.
const maxExemplarBytes = 4 * exemplar.ExemplarMaxLabelSetLength

func (d *decoder) exemplarV1(b []byte, ok bool) error {
	var e prompb.Exemplar
	if err := e.Unmarshal(b); err != nil {
		return fmt.Errorf("%w: exemplar: %w", ErrMalformed, err)
	}
	size := 0
	for _, l := range e.Labels {
		size += len(l.Name) + len(l.Value)
	}
	if ok && size <= maxExemplarBytes {
		d.exemplar(e.ToExemplar(&d.builder, nil))
	}
	return nil
}

func (d *decoder) exemplarV2(b []byte, ok bool) error {
	var e writev2.Exemplar
	if err := e.Unmarshal(b); err != nil {
		return fmt.Errorf("%w: exemplar: %w", ErrMalformed, err)
	}
	if !ok {
		return nil
	}
	if err := d.checkRefs(e.LabelsRefs); err != nil {
		d.refused.add(reasonExemplar, 1, "parsing exemplar for series %v: %v", d.sink.Labels(), err)
		return nil
	}
	size := 0
	d.builder.Reset()
	for i := 0; i < len(e.LabelsRefs) && size <= maxExemplarBytes; i += 2 {
		name, value := d.symbols[e.LabelsRefs[i]], d.symbols[e.LabelsRefs[i+1]]
		d.builder.Add(alias(name), alias(value))
		size += len(name) + len(value)
	}
	if size > maxExemplarBytes {
		return nil
	}
	d.builder.Sort()
	d.exemplar(exemplar.Exemplar{Labels: d.builder.Labels(), Value: e.Value, Ts: e.Timestamp, HasTs: e.Timestamp != 0})
	return nil
}

// exemplar hands e over, unless it is one that Prometheus drops without telling the writer: exemplars are extras,
// and a sender cannot do anything about them.
func (d *decoder) exemplar(e exemplar.Exemplar) {
	if e.Ts > d.sure || !validExemplarLabels(e.Labels) {
		return
	}
	d.sink.Exemplar(e)
}

func validExemplarLabels(ls labels.Labels) bool {
	runes := 0
	err := ls.Validate(func(l labels.Label) error {
		runes += len([]rune(l.Name)) + len([]rune(l.Value))
		if runes > exemplar.ExemplarMaxLabelSetLength {
			return ErrTooLarge
		}
		return nil
	})
	return err == nil
}
