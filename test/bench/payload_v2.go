// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import "encoding/binary"

// Metric types of io.prometheus.write.v2.Metadata.
const (
	typeCounter = 1
	typeGauge   = 2
)

// newPayloadV2 builds an io.prometheus.write.v2.Request: field 4 is a symbol, field 5 a series, of which field 1
// lists symbols of labels, field 2 is a sample and field 5 the metadata (1 type).
func newPayloadV2(ss []*series) *payload {
	p := &payload{series: ss}
	table := symbols{refs: map[string]uint64{}}
	table.ref("") // by the specification the first symbol is empty
	var body []byte
	for _, s := range ss {
		var refs []byte
		for _, l := range s.labels {
			refs = binary.AppendUvarint(refs, table.ref(l[0]))
			refs = binary.AppendUvarint(refs, table.ref(l[1]))
		}
		kind := byte(typeGauge)
		if s.counter {
			kind = typeCounter
		}
		ts := field(field(nil, 1, refs), 5, []byte{1 << 3, kind})
		body = field(body, 5, field(ts, 2, sampleBytes()))
		p.values = append(p.values, len(body)-len(sampleBytes())+1)
	}
	p.raw = append(table.raw, body...)
	for i := range p.values {
		p.values[i] += len(table.raw)
	}
	return p
}

// symbols is the table of strings of a request.
type symbols struct {
	refs map[string]uint64
	raw  []byte
}

func (s *symbols) ref(text string) uint64 {
	ref, ok := s.refs[text]
	if !ok {
		ref = uint64(len(s.refs))
		s.refs[text] = ref
		s.raw = field(s.raw, 4, []byte(text))
	}
	return ref
}
