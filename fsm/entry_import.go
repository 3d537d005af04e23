// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"fmt"
	"regexp"

	"github.com/prometheus/prometheus/tsdb/encoding"

	"github.com/deucaliondb/deucalion/storage"
)

// Import adds the samples of whole blocks, which the members have on their disks
// already: the entry only lists their files. A sample at a time that is taken has
// no effect; of two blocks of the import the earlier one wins.
type Import struct {
	// ID names the directory of the files, and makes the import idempotent: see
	// Delete.ID.
	ID     string
	Blocks []storage.BlockFiles // made by PrepareImport; without Pos
}

// Bytes is the size of all files.
func (x Import) Bytes() (n int64) {
	for _, b := range x.Blocks {
		n += b.Bytes()
	}
	return n
}

// importID and importFile are what may become a name on the disk.
var (
	importID   = regexp.MustCompile(`^[0-9a-f]{16}$`)
	importFile = regexp.MustCompile(`^(meta\.json|index|tombstones|chunks/[0-9]{6})$`)
)

// Check tells whether the import names nothing but the files of blocks. Whoever
// gets one from elsewhere must ask.
func (x Import) Check() error {
	if !importID.MatchString(x.ID) {
		return fmt.Errorf("%w: import id %q", ErrFormat, x.ID)
	}
	for _, b := range x.Blocks {
		for _, f := range b.Files {
			if !importFile.MatchString(f.Path) || f.Size < 0 {
				return fmt.Errorf("%w: block file %q of %d bytes", ErrFormat, f.Path, f.Size)
			}
		}
	}
	return nil
}

// EncodeImport makes the entry.
func EncodeImport(x Import) []byte {
	b := appendString(newEntry(kindImport), x.ID)
	b = binary.AppendUvarint(b, uint64(len(x.Blocks)))
	for _, k := range x.Blocks {
		b = append(b, k.ULID[:]...)
		b = binary.AppendVarint(binary.AppendVarint(b, k.MinTime), k.MaxTime)
		b = binary.AppendUvarint(b, uint64(len(k.Files)))
		for _, f := range k.Files {
			b = binary.AppendUvarint(appendString(b, f.Path), uint64(f.Size))
			b = binary.LittleEndian.AppendUint32(b, f.CRC32C)
		}
	}
	return seal(b)
}

// The least that a block and a file take in an entry.
const (
	minImportBlock = 16 + 3
	minImportFile  = 2 + 4
)

func decodeImport(p []byte) (Import, error) {
	w := walk{encoding.Decbuf{B: p}}
	x := Import{ID: str(&w.Decbuf)}
	for n := w.count(minImportBlock); n > 0 && w.Err() == nil; n-- {
		var b storage.BlockFiles
		id := w.B
		if w.skip(len(b.ULID)); w.Err() != nil {
			break
		}
		copy(b.ULID[:], id)
		b.MinTime, b.MaxTime = w.Varint64(), w.Varint64()
		for k := w.count(minImportFile); k > 0 && w.Err() == nil; k-- {
			f := storage.File{Path: str(&w.Decbuf), Size: int64(w.Uvarint64())}
			sum := w.B
			if w.skip(4); w.Err() == nil {
				f.CRC32C = binary.LittleEndian.Uint32(sum)
			}
			b.Files = append(b.Files, f)
		}
		x.Blocks = append(x.Blocks, b)
	}
	if err := done(&w.Decbuf); err != nil {
		return Import{}, err
	}
	return x, x.Check()
}
