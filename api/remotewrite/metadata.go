// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"google.golang.org/protobuf/encoding/protowire"
)

// maxMetadataBytes bounds name, help and unit together. Longer metadata is dropped: in version 2 a few bytes of
// references would otherwise multiply a symbol of megabytes.
const maxMetadataBytes = 64 << 10

// metadataV1 takes one MetricMetadata message.
func (d *decoder) metadataV1(b []byte) error {
	var m prompb.MetricMetadata
	if err := m.Unmarshal(b); err != nil {
		return fmt.Errorf("%w: metadata: %w", ErrMalformed, err)
	}
	size := len(m.MetricFamilyName) + len(m.Help) + len(m.Unit)
	if m.MetricFamilyName == "" || size > maxMetadataBytes {
		return nil
	}
	if err := d.spend(itemCost + size); err != nil {
		return err
	}
	d.sink.Metadata(strings.ToValidUTF8(m.MetricFamilyName, "\uFFFD"), metadata.Metadata{
		Type: metricType(int32(m.Type)),
		Help: strings.ToValidUTF8(m.Help, "\uFFFD"),
		Unit: strings.ToValidUTF8(m.Unit, "\uFFFD"),
	})
	return nil
}

// metadataV2 is the Metadata message of a series of version 2.
type metadataV2 struct {
	typ        int32
	help, unit uint32 // references into the symbol table
}

// merge reads one Metadata message; a repeated one adds to the one before, as everywhere in protobuf.
func (m *metadataV2) merge(b []byte) error {
	c := cursor{rest: b}
	for c.next() {
		switch {
		case c.num == 1 && c.want(protowire.VarintType):
			m.typ = int32(c.val)
		case c.num == 3 && c.want(protowire.VarintType):
			m.help = uint32(c.val)
		case c.num == 4 && c.want(protowire.VarintType):
			m.unit = uint32(c.val)
		}
	}
	return c.err
}

// checkMetadata fails if the references of m leave the symbol table.
func (d *decoder) checkMetadata(m metadataV2) error {
	size := max(uint64(len(d.symbols)), 1) // 0 is "none" also for a request without symbols
	if uint64(m.unit) >= size {
		return fmt.Errorf("%w: metadata unit_ref %d outside of symbols table (size %d)", errSymbols, m.unit, len(d.symbols))
	}
	if uint64(m.help) >= size {
		return fmt.Errorf("%w: metadata help_ref %d outside of symbols table (size %d)", errSymbols, m.help, len(d.symbols))
	}
	return nil
}

// describe puts type and unit of the current series into its key as labels, in place of those that the sender has
// named so. Metadata without both changes nothing.
func (d *decoder) describe(m metadataV2) error {
	t, unit := metricType(m.typ), []byte(nil)
	if m.unit > 0 {
		unit = d.symbols[m.unit]
	}
	if t == model.MetricTypeUnknown && len(unit) == 0 {
		return nil
	}
	kept := d.refs[:0]
	for pair := range slices.Chunk(d.refs, 2) {
		if name := string(d.symbols[pair[0]]); name != model.MetricTypeLabel && name != model.MetricUnitLabel {
			kept = append(kept, pair...)
		}
	}
	if len(kept) < len(d.refs) {
		d.refs = kept
		if err := d.keyV2(); err != nil {
			return err
		}
	}
	if len(d.key)+len(unit) > d.maxLabel { // as keyV2: many series may refer to one long unit
		return fmt.Errorf(labelsTooLong, nameInKey(d.key), d.maxLabel)
	}
	if t != model.MetricTypeUnknown {
		d.key = appendLabel(d.key, []byte(model.MetricTypeLabel), []byte(t))
	}
	if len(unit) > 0 {
		d.key = appendLabel(d.key, []byte(model.MetricUnitLabel), unit)
	}
	return nil
}

// metadataV2 hands the metadata of the series in d.refs over, once a request for each family.
func (d *decoder) metadataV2(m metadataV2) error {
	if m == (metadataV2{}) {
		return nil
	}
	ref, ok := d.metricName()
	if !ok || d.told[ref] == m {
		return nil
	}
	d.told[ref] = m
	name, help, unit := d.symbols[ref], d.symbols[m.help], d.symbols[m.unit]
	size := len(name) + len(help) + len(unit)
	if size > maxMetadataBytes {
		return nil
	}
	if err := d.spend(itemCost + size); err != nil {
		return err
	}
	t := metricType(m.typ)
	d.sink.Metadata(family(string(name), t), metadata.Metadata{
		Type: t,
		Help: strings.ToValidUTF8(string(help), "\uFFFD"),
		Unit: strings.ToValidUTF8(string(unit), "\uFFFD"),
	})
	return nil
}

// metricType maps the enum, which is the same in both versions.
func metricType(t int32) model.MetricType {
	switch writev2.Metadata_MetricType(t) {
	case writev2.Metadata_METRIC_TYPE_COUNTER:
		return model.MetricTypeCounter
	case writev2.Metadata_METRIC_TYPE_GAUGE:
		return model.MetricTypeGauge
	case writev2.Metadata_METRIC_TYPE_HISTOGRAM:
		return model.MetricTypeHistogram
	case writev2.Metadata_METRIC_TYPE_GAUGEHISTOGRAM:
		return model.MetricTypeGaugeHistogram
	case writev2.Metadata_METRIC_TYPE_SUMMARY:
		return model.MetricTypeSummary
	case writev2.Metadata_METRIC_TYPE_INFO:
		return model.MetricTypeInfo
	case writev2.Metadata_METRIC_TYPE_STATESET:
		return model.MetricTypeStateset
	}
	return model.MetricTypeUnknown
}

// family is the name under which /api/v1/metadata lists a series called name: version 2 sends the metadata of a
// classic histogram or summary with each of its series, Prometheus keeps it once for the family.
func family(name string, t model.MetricType) string {
	var suffixes []string
	switch t {
	case model.MetricTypeHistogram:
		suffixes = []string{"_bucket", "_sum", "_count"}
	case model.MetricTypeGaugeHistogram:
		suffixes = []string{"_bucket", "_gsum", "_gcount"}
	case model.MetricTypeSummary:
		suffixes = []string{"_sum", "_count"}
	}
	for _, s := range suffixes {
		if base, ok := strings.CutSuffix(name, s); ok && base != "" {
			return base
		}
	}
	return name
}
