// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

// Sink is what the decoders write to; the tests put a recorder there.
type Sink = sink

// Decoder gives the external tests the decoders without HTTP around them.
type Decoder struct{ d decoder }

// Decode walks one body and returns how many samples were refused, by reason.
func (d *Decoder) Decode(s Sink, v2 bool, body []byte, maxTime int64, maxLabel int) (map[string]int, error) {
	d.d.reset(s, maxTime, maxTime, maxLabel)
	defer d.d.release()
	if v2 {
		err := d.d.v2(body)
		return d.d.refused.counts, err
	}
	err := d.d.v1(body)
	return d.d.refused.counts, err
}

// Kept is about how many bytes the buffers between two requests have.
func (d *Decoder) Kept() int {
	return cap(d.d.key) + 4*cap(d.d.refs) + 12*cap(d.d.told) + 24*(cap(d.d.symbols)+cap(d.d.series)) + 32*cap(d.d.parts)
}
