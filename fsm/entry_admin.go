// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/tsdb/encoding"
)

// EncodeCutoff makes an entry that raises the retention limit to t
// (milliseconds): samples below are gone at once. t may be storage.NoTime or a
// limit that holds already; the entry then only drops idle series ids.
func EncodeCutoff(t int64) []byte {
	return seal(binary.AppendVarint(newEntry(kindCutoff), t))
}

func decodeCutoff(p []byte) (int64, error) {
	d := encoding.Decbuf{B: p}
	t := d.Varint64()
	return t, done(&d)
}

// EncodeClean makes an entry upon which every node rewrites its blocks that
// hold deleted samples. WaitTask(id) tells when this node has.
func EncodeClean(id string) []byte { return seal(appendString(newEntry(kindClean), id)) }

func decodeClean(p []byte) (string, error) {
	d := encoding.Decbuf{B: p}
	id := str(&d)
	return id, done(&d)
}

// UserSnapshot asks every node for a snapshot of the state at the entry's index
// in <data>/snapshots/<Name>. WaitTask(ID) tells when this node has it.
type UserSnapshot struct{ ID, Name string }

// EncodeUserSnapshot makes the entry.
func EncodeUserSnapshot(s UserSnapshot) []byte {
	return seal(appendString(appendString(newEntry(kindUserSnapshot), s.ID), s.Name))
}

func decodeUserSnapshot(p []byte) (UserSnapshot, error) {
	d := encoding.Decbuf{B: p}
	s := UserSnapshot{str(&d), str(&d)}
	return s, done(&d)
}
