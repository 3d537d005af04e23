// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/deucaliondb/deucalion/storage"
)

// The state file is a list of sections like those of an append entry: a tag, the
// length (4 bytes, little endian), the content. It starts with the header and
// ends with an empty end section; what is long comes in several sections.
const (
	stateHeader    section = 1 // JSON of header
	stateSeries    section = 2 // batch of series, see putSeries
	stateExemplars section = 3 // batch: a series record, then an exemplar record that refers to it
	stateMetadata  section = 4 // as metaSection of an append
	stateEnd       section = 5
)

// stateBatch is how many series or exemplars one section holds.
const stateBatch = 1024

type stateWriter struct {
	w   *bufio.Writer
	crc uint32
	n   int64
	buf []byte
	err error
}

func (w *stateWriter) put(tag section, f func([]byte) []byte) {
	if w.err != nil {
		return
	}
	w.buf = f(append(w.buf[:0], byte(tag), 0, 0, 0, 0))
	binary.LittleEndian.PutUint32(w.buf[1:], uint32(len(w.buf)-5))
	w.crc = crc32.Update(w.crc, castagnoli, w.buf)
	w.n += int64(len(w.buf))
	_, w.err = w.w.Write(w.buf)
}

// writeState writes and fsyncs the state file.
func writeState(name string, s *Snapshot) (storage.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return storage.File{}, err
	}
	defer f.Close()
	w := &stateWriter{w: bufio.NewWriterSize(f, 1<<20)}
	head, err := json.Marshal(s.header)
	if err != nil {
		return storage.File{}, err
	}
	w.put(stateHeader, func(b []byte) []byte { return append(b, head...) })
	for rest := s.series; len(rest) > 0; {
		n := min(stateBatch, len(rest))
		w.put(stateSeries, func(b []byte) []byte { return putSeries(b, rest[:n]) })
		rest = rest[n:]
	}
	for rest := s.exemplars; len(rest) > 0; {
		n := min(stateBatch, len(rest))
		w.put(stateExemplars, func(b []byte) []byte { return putExemplars(b, rest[:n]) })
		rest = rest[n:]
	}
	var ms []familyMetadata
	for family, list := range s.metadata {
		for _, m := range list {
			ms = append(ms, familyMetadata{family, m})
		}
	}
	w.put(stateMetadata, func(b []byte) []byte { return encodeMetadata(ms, b) })
	w.put(stateEnd, func(b []byte) []byte { return b })
	if w.err == nil {
		w.err = w.w.Flush()
	}
	if w.err == nil {
		w.err = f.Sync()
	}
	return storage.File{Path: stateName, Size: w.n, CRC32C: w.crc}, w.err
}

// putSeries encodes for each series id, newest timestamp, kind, labels.
func putSeries(b []byte, ss []seriesState) []byte {
	e := encoding.Encbuf{B: b}
	e.PutUvarint(len(ss))
	for _, s := range ss {
		e.PutUvarint64(s.id)
		e.PutVarint64(s.lastT)
		e.PutByte(byte(s.kind))
		record.EncodeLabels(&e, s.labels)
	}
	return e.B
}

func putExemplars(b []byte, xs []exemplarState) []byte {
	var enc record.Encoder
	var series []record.RefSeries
	var refs []record.RefExemplar
	for i, x := range xs {
		ref := chunks.HeadSeriesRef(i)
		series = append(series, record.RefSeries{Ref: ref, Labels: x.series})
		refs = append(refs, record.RefExemplar{Ref: ref, T: x.Ts, V: x.Value, Labels: x.Labels})
	}
	rec := enc.Series(series, nil)
	b = binary.AppendUvarint(b, uint64(len(rec)))
	return enc.Exemplars(refs, append(b, rec...))
}

// state is a decoded state file, without the series, which go to a table.
type state struct {
	header    header
	exemplars []exemplarState
	metadata  []familyMetadata
}

// readState reads a state file, whose checksum was verified before.
func readState(name string, t *table) (state, error) {
	f, err := os.Open(name)
	if err != nil {
		return state{}, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	var st state
	var buf []byte
	for {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return state{}, fmt.Errorf("%w: %s: %w", ErrSnapshot, name, err)
		}
		n := int(binary.LittleEndian.Uint32(head[1:]))
		if cap(buf) < n {
			buf = make([]byte, n)
		}
		buf = buf[:n]
		if _, err := io.ReadFull(r, buf); err != nil {
			return state{}, fmt.Errorf("%w: %s: %w", ErrSnapshot, name, err)
		}
		if section(head[0]) == stateEnd {
			return st, nil
		}
		if err := st.section(section(head[0]), buf, t); err != nil {
			return state{}, fmt.Errorf("%w: %s: %w", ErrSnapshot, name, err)
		}
	}
}

func (st *state) section(tag section, p []byte, t *table) (err error) {
	switch tag {
	case stateHeader:
		if err = json.Unmarshal(p, &st.header); err == nil {
			t.nextID = st.header.NextID
		}
	case stateSeries:
		err = readSeries(p, t)
	case stateExemplars:
		err = st.readExemplars(p)
	case stateMetadata:
		st.metadata, err = decodeMetadata(p, st.metadata)
	default:
		err = errUnknownSection
	}
	return err
}

func readSeries(p []byte, t *table) error {
	d := encoding.Decbuf{B: p}
	dec := record.NewDecoder(nil, nil)
	for n := d.Uvarint(); n > 0 && d.Err() == nil; n-- {
		id, lastT, kind := d.Uvarint64(), d.Varint64(), valueKind(d.Byte())
		s := t.insert(id, dec.DecodeLabels(&d))
		s.lastT.Store(lastT)
		s.kind = kind
	}
	return done(&d)
}

func (st *state) readExemplars(p []byte) error {
	d := encoding.Decbuf{B: p}
	n := d.Uvarint()
	if d.Err() != nil || n > d.Len() {
		return errUnknownSection
	}
	dec := record.NewDecoder(nil, nil)
	series, err := dec.Series(d.B[:n], nil)
	if err != nil {
		return err
	}
	refs, err := dec.Exemplars(d.B[n:], nil)
	if err != nil {
		return err
	}
	for _, x := range refs {
		if uint64(x.Ref) >= uint64(len(series)) {
			return errUnknownSection
		}
		st.exemplars = append(st.exemplars, exemplarState{series[x.Ref].Labels, exemplar.Exemplar{Labels: x.Labels, Value: x.V, Ts: x.T, HasTs: true}})
	}
	return nil
}
