// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"fmt"
	"log/slog"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/record"
)

// The payload of an append is a list of sections: a tag, the length (4 bytes,
// little endian), and a record of Prometheus's WAL (package tsdb/record). Refs
// in records of known series are series ids. Refs in records of fresh series
// are positions in the series section of the same entry.
//
// Tags rise strictly, so each occurs at most once. Positions of samples
// (Refusal.Pos) count through the sample sections in this order.
type section byte

const (
	knownSections section = 0x10 // plus one of the sec constants below
	seriesSection section = 0x20
	freshSections section = 0x20 // plus one of the sec constants below
	metaSection   section = 0x30
)

const (
	secFloats section = iota + 1
	secHistograms
	secFloatHistograms
	secCustomHistograms // custom buckets have record types of their own
	secCustomFloatHistograms
	secExemplars
)

// samples are samples and exemplars that refer to their series in one way, by
// id or by position.
type samples struct {
	floats           []record.RefSample
	histograms       []record.RefHistogramSample
	floatHistograms  []record.RefFloatHistogramSample
	customHistograms []record.RefHistogramSample
	customFloatHists []record.RefFloatHistogramSample
	exemplars        []record.RefExemplar
}

// reset empties s, keeps the memory, and lets go of what it pointed to.
func (s *samples) reset() {
	clear(s.histograms)
	clear(s.floatHistograms)
	clear(s.customHistograms)
	clear(s.customFloatHists)
	clear(s.exemplars)
	s.floats, s.exemplars = s.floats[:0], s.exemplars[:0]
	s.histograms, s.floatHistograms = s.histograms[:0], s.floatHistograms[:0]
	s.customHistograms, s.customFloatHists = s.customHistograms[:0], s.customFloatHists[:0]
}

// len is the number of samples; exemplars are not counted.
func (s *samples) len() int {
	return len(s.floats) + len(s.histograms) + len(s.floatHistograms) + len(s.customHistograms) + len(s.customFloatHists)
}

// familyMetadata is the metadata of one metric family.
type familyMetadata struct {
	family string
	metadata.Metadata
}

// appendEntry is a decoded append. Its memory is used again for the next one.
type appendEntry struct {
	known, fresh samples
	series       []record.RefSeries
	metadata     []familyMetadata
}

func (e *appendEntry) reset() {
	e.known.reset()
	e.fresh.reset()
	clear(e.series)
	clear(e.metadata)
	e.series, e.metadata = e.series[:0], e.metadata[:0]
}

func (e *appendEntry) empty() bool {
	return e.known.len()+e.fresh.len()+len(e.known.exemplars)+len(e.fresh.exemplars)+len(e.metadata) == 0
}

// encode makes the log entry.
func (e *appendEntry) encode() []byte {
	b := make([]byte, entryHead, 256+15*e.known.len()+15*e.fresh.len()+200*len(e.series))
	b[0], b[1] = entryVersion, byte(kindAppend)
	var enc record.Encoder
	b = e.known.encode(b, knownSections, &enc)
	b = putSection(b, seriesSection, len(e.series), func(b []byte) []byte { return enc.Series(e.series, b) })
	b = e.fresh.encode(b, freshSections, &enc)
	b = putSection(b, metaSection, len(e.metadata), func(b []byte) []byte { return encodeMetadata(e.metadata, b) })
	return seal(b)
}

func (s *samples) encode(b []byte, base section, enc *record.Encoder) []byte {
	b = putSection(b, base+secFloats, len(s.floats), func(b []byte) []byte { return enc.Samples(s.floats, b) })
	b = putSection(b, base+secHistograms, len(s.histograms), func(b []byte) []byte {
		b, _ = enc.HistogramSamples(s.histograms, b) // what it leaves out has custom buckets: there are none here
		return b
	})
	b = putSection(b, base+secFloatHistograms, len(s.floatHistograms), func(b []byte) []byte {
		b, _ = enc.FloatHistogramSamples(s.floatHistograms, b)
		return b
	})
	b = putSection(b, base+secCustomHistograms, len(s.customHistograms), func(b []byte) []byte {
		return enc.CustomBucketsHistogramSamples(s.customHistograms, b)
	})
	b = putSection(b, base+secCustomFloatHistograms, len(s.customFloatHists), func(b []byte) []byte {
		return enc.CustomBucketsFloatHistogramSamples(s.customFloatHists, b)
	})
	return putSection(b, base+secExemplars, len(s.exemplars), func(b []byte) []byte { return enc.Exemplars(s.exemplars, b) })
}

func putSection(b []byte, tag section, n int, f func([]byte) []byte) []byte {
	if n == 0 {
		return b
	}
	b = append(b, byte(tag), 0, 0, 0, 0)
	at := len(b)
	b = f(b)
	binary.LittleEndian.PutUint32(b[at-4:], uint32(len(b)-at))
	return b
}

// decode reads the payload of an append into e, whose memory it uses again.
func (e *appendEntry) decode(p []byte) error {
	e.reset()
	dec := record.NewDecoder(nil, slog.New(slog.DiscardHandler))
	var last section
	for len(p) > 0 {
		if len(p) < 5 {
			return fmt.Errorf("%w: append ends within a section head", ErrFormat)
		}
		tag, n := section(p[0]), int(binary.LittleEndian.Uint32(p[1:]))
		if n > len(p)-5 || tag <= last {
			return fmt.Errorf("%w: append section %#x of %d bytes after %#x", ErrFormat, tag, n, last)
		}
		rec := p[5 : 5+n]
		p, last = p[5+n:], tag
		var err error
		switch {
		case tag == metaSection:
			e.metadata, err = decodeMetadata(rec, e.metadata)
		case tag == seriesSection:
			if err = checkRecord(rec, record.Series); err == nil {
				e.series, err = dec.Series(rec, e.series)
			}
		case tag > freshSections:
			err = e.fresh.decode(tag-freshSections, rec, &dec)
		case tag > knownSections:
			err = e.known.decode(tag-knownSections, rec, &dec)
		default:
			err = errUnknownSection
		}
		if err != nil {
			return fmt.Errorf("%w: append section %#x: %w", ErrFormat, tag, err)
		}
	}
	return nil
}

// recordTypes are the types of record that encode makes.
var recordTypes = [...]record.Type{
	secFloats:                record.Samples,
	secHistograms:            record.HistogramSamples,
	secFloatHistograms:       record.FloatHistogramSamples,
	secCustomHistograms:      record.CustomBucketsHistogramSamples,
	secCustomFloatHistograms: record.CustomBucketsFloatHistogramSamples,
	secExemplars:             record.Exemplars,
}

func (s *samples) decode(sec section, rec []byte, dec *record.Decoder) (err error) {
	if int(sec) >= len(recordTypes) {
		return errUnknownSection
	}
	if err := checkRecord(rec, recordTypes[sec]); err != nil {
		return err
	}
	switch sec {
	case secFloats:
		s.floats, err = dec.Samples(rec, s.floats)
	case secHistograms:
		s.histograms, err = dec.HistogramSamples(rec, s.histograms)
	case secFloatHistograms:
		s.floatHistograms, err = dec.FloatHistogramSamples(rec, s.floatHistograms)
	case secCustomHistograms:
		s.customHistograms, err = dec.HistogramSamples(rec, s.customHistograms)
	case secCustomFloatHistograms:
		s.customFloatHists, err = dec.FloatHistogramSamples(rec, s.customFloatHists)
	case secExemplars:
		s.exemplars, err = dec.Exemplars(rec, s.exemplars)
	}
	return err
}

func encodeMetadata(ms []familyMetadata, b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(ms)))
	for _, m := range ms {
		for _, s := range []string{m.family, string(m.Type), m.Unit, m.Help} {
			b = appendString(b, s)
		}
	}
	return b
}

func decodeMetadata(p []byte, ms []familyMetadata) ([]familyMetadata, error) {
	d := encoding.Decbuf{B: p}
	for n := d.Uvarint(); n > 0 && d.Err() == nil; n-- {
		ms = append(ms, familyMetadata{str(&d), metadata.Metadata{
			Type: model.MetricType(str(&d)), Unit: str(&d), Help: str(&d),
		}})
	}
	return ms, done(&d)
}
