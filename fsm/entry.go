// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// entryVersion is the version of the entry format. A new kind needs no new
// version, but must not be proposed before every member knows it.
const entryVersion = 1

// kind is the second byte of an entry. The numbers are on disk.
type kind byte

const (
	kindAppend       kind = 1
	kindDelete       kind = 2
	kindClean        kind = 3
	kindCutoff       kind = 4
	kindUserSnapshot kind = 5
	kindNoop         kind = 6
	kindSettings     kind = 7
	kindDigest       kind = 8
	kindShipped      kind = 9
	kindImport       kind = 10
)

const (
	entryHead = 2 // version and kind
	entryTail = 4 // CRC
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newEntry(k kind) []byte { return []byte{entryVersion, byte(k)} }

// seal appends the checksum. The log store does not verify what it reads, so
// the entry brings its own.
func seal(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// open checks an entry and returns its kind and payload, which share b's memory.
func open(b []byte) (kind, []byte, error) {
	if len(b) < entryHead+entryTail {
		return 0, nil, fmt.Errorf("%w: %d bytes", ErrFormat, len(b))
	}
	body, tail := b[:len(b)-entryTail], b[len(b)-entryTail:]
	if want, got := binary.LittleEndian.Uint32(tail), crc32.Checksum(body, castagnoli); want != got {
		return 0, nil, fmt.Errorf("%w: CRC-32C %08x, want %08x", ErrFormat, got, want)
	}
	if v := body[0]; v != entryVersion {
		return 0, nil, fmt.Errorf("%w, %w: format version %d; this node knows %d and must be upgraded", ErrFormat, ErrNewer, v, entryVersion)
	}
	return kind(body[1]), body[entryHead:], nil
}

// IsAppend tells whether an encoded entry adds samples, and so needs room for
// more than itself.
func IsAppend(b []byte) bool { return len(b) >= entryHead && kind(b[1]) == kindAppend }

// EncodeNoop makes an entry without effect. A new leader proposes one: its
// application shows that the leader knows everything committed before its term.
func EncodeNoop() []byte { return seal(newEntry(kindNoop)) }
