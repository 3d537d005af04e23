// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package bench

// newPayloadV1 builds a prometheus.WriteRequest: field 1 is a series, of which field 1 is a label (1 name,
// 2 value) and field 2 a sample.
func newPayloadV1(ss []*series) *payload {
	p := &payload{series: ss}
	for _, s := range ss {
		var ts []byte
		for _, l := range s.labels {
			ts = field(ts, 1, field(field(nil, 1, []byte(l[0])), 2, []byte(l[1])))
		}
		ts = field(ts, 2, sampleBytes())
		p.raw = field(p.raw, 1, ts)
		p.values = append(p.values, len(p.raw)-len(sampleBytes())+1)
	}
	return p
}
