// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"unsafe"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/encoding/protowire"
)

// labels parses the label fields in key, in whatever order they came, and returns them sorted and copied.
func (d *decoder) labels(key []byte) (labels.Labels, error) {
	d.builder.Reset()
	c := cursor{rest: key}
	for c.next() {
		name, value, err := label(c.raw)
		if err != nil {
			return labels.EmptyLabels(), err
		}
		d.builder.Add(alias(name), alias(value))
	}
	if c.err != nil {
		return labels.EmptyLabels(), c.err
	}
	d.builder.Sort()
	return d.builder.Labels(), nil
}

// label parses one Label message; the last of a repeated field counts, as everywhere in protobuf.
func label(b []byte) (name, value []byte, err error) {
	c := cursor{rest: b}
	for c.next() {
		switch {
		case c.num == 1 && c.want(protowire.BytesType):
			name = c.raw
		case c.num == 2 && c.want(protowire.BytesType):
			value = c.raw
		}
	}
	return name, value, c.err
}

// alias saves a copy per label: ScratchBuilder keeps its strings only until Labels, which copies them.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// checkLabels fails if key is not a run of well-formed label fields.
func checkLabels(key []byte) error {
	c := cursor{rest: key}
	for c.next() {
		if _, _, err := label(c.raw); err != nil {
			return err
		}
	}
	return c.err
}

// invalid returns why a label set cannot name a series, "" if it can.
func invalid(ls labels.Labels) string {
	if !ls.Has(model.MetricNameLabel) || !ls.IsValid(model.UTF8Validation) {
		return "invalid metric name or labels, got " + brief(ls)
	}
	if name, ok := ls.HasDuplicateLabelNames(); ok {
		return "invalid labels for series, labels " + brief(ls) + ", duplicated label " + name
	}
	return ""
}

// appendLabel writes one label to key as a remote-write v1 sender would.
func appendLabel(key, name, value []byte) []byte {
	n, v := len(name), len(value)
	if n+v < 0x7c { // every length fits one byte, as for nearly all labels
		key = append(key, 0x0a, byte(4+n+v), 0x0a, byte(n))
		key = append(key, name...)
		key = append(key, 0x12, byte(v))
		return append(key, value...)
	}
	key = protowire.AppendVarint(append(key, 0x0a), uint64(2+protowire.SizeBytes(n)+protowire.SizeBytes(v)))
	key = protowire.AppendBytes(append(key, 0x0a), name)
	return protowire.AppendBytes(append(key, 0x12), value)
}

// nameInKey finds the metric name in a key for an error message, without building the other labels.
func nameInKey(key []byte) string {
	c := cursor{rest: key}
	for c.next() {
		name, value, err := label(c.raw)
		if err == nil && string(name) == model.MetricNameLabel {
			return string(value[:min(len(value), maxDetail)])
		}
	}
	return "without a name"
}
