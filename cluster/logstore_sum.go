// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/internal/plant"
)

const (
	// sumVersion is the first byte of an entry's extensions in the store, sumBytes the length of what is put before
	// the extensions that Raft gave: the version and a CRC-32C.
	sumVersion = 1
	sumBytes   = 1 + 4
)

// sumLog gives every entry a checksum: neither log store verifies what it reads back, and Raft would apply, or send to
// others, whatever a flipped bit has made of an entry. The sum travels in the extensions of the stored copy only. It also
// keeps the mark of the log's end.
type sumLog struct {
	logStore
	dir string // for messages
	end *endMark
}

// entrySum covers all of an entry that Raft acts on, with ext in place of what the store holds as extensions.
func entrySum(l *raft.Log, ext []byte) uint32 {
	var head [25]byte
	binary.BigEndian.PutUint64(head[0:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	binary.BigEndian.PutUint64(head[16:], uint64(len(l.Data)))
	head[24] = byte(l.Type)
	c := crc32.Update(0, castagnoli, head[:])
	c = crc32.Update(c, castagnoli, l.Data)
	return crc32.Update(c, castagnoli, ext)
}

// StoreLog implements raft.LogStore.
func (s *sumLog) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. The given entries stay as they are: Raft replicates and caches them.
func (s *sumLog) StoreLogs(ls []*raft.Log) error {
	if len(ls) == 0 {
		return nil
	}
	copies := make([]raft.Log, len(ls))
	pointers := make([]*raft.Log, len(ls))
	sums := make([]byte, 0, len(ls)*sumBytes)
	for i, l := range ls {
		copies[i] = *l
		at := len(sums)
		sums = append(sums, sumVersion)
		sums = binary.BigEndian.AppendUint32(sums, entrySum(l, l.Extensions))
		ext := sums[at:len(sums):len(sums)]
		copies[i].Extensions = append(ext, l.Extensions...)
		pointers[i] = &copies[i]
	}
	if err := s.logStore.StoreLogs(pointers); err != nil {
		return err
	}
	last := ls[len(ls)-1]
	s.end.advance(last.Index, last.Term)
	return nil
}

// GetLog implements raft.LogStore. An entry that is there and cannot be trusted is ErrDamaged.
func (s *sumLog) GetLog(i uint64, l *raft.Log) error {
	err := recovered(func() error { return s.logStore.GetLog(i, l) })
	switch {
	case err == nil:
		err = verifyEntry(i, l)
	case errors.Is(err, raft.ErrLogNotFound), errors.Is(err, types.ErrClosed):
		return err
	}
	if errors.Is(err, fsm.ErrNewer) {
		return fmt.Errorf("%s: entry %d: %w", s.dir, i, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: entry %d: %w", ErrDamaged, s.dir, i, err)
	}
	return nil
}

var errSum = errors.New("wrong checksum")

// otherVersion is the error for a sum that does not begin with sumVersion: fsm.ErrNewer if a newer version of this
// program has made it. To be told from damage, versions above 1 keep version and CRC in their places, and the CRC goes on
// over the version byte.
func otherVersion(b []byte, sum uint32) error {
	if b[0] > sumVersion && binary.BigEndian.Uint32(b[1:]) == newerSum(b[0], sum) {
		return fmt.Errorf("%w: checksum of version %d; this node knows %d and must be upgraded", fsm.ErrNewer, b[0], sumVersion)
	}
	return errors.New("no checksum")
}

func newerSum(version byte, sum uint32) uint32 { return crc32.Update(sum, castagnoli, []byte{version}) }

// verifyEntry checks what the store gave for entry i, and takes the sum off.
func verifyEntry(i uint64, l *raft.Log) error {
	ext := l.Extensions
	if l.Index != i {
		return fmt.Errorf("holds entry %d", l.Index)
	}
	if len(ext) < sumBytes {
		return errors.New("no checksum")
	}
	sum := entrySum(l, ext[sumBytes:])
	if ext[0] != sumVersion {
		return otherVersion(ext, sum)
	}
	if binary.BigEndian.Uint32(ext[1:]) != sum && !plant.IgnoreLogChecksum {
		return errSum
	}
	l.Extensions = ext[sumBytes:]
	if len(l.Extensions) == 0 {
		l.Extensions = nil
	}
	return nil
}

// DeleteRange implements raft.LogStore. The mark comes down before the tail of the log does, or a crash in between would
// look like damage.
func (s *sumLog) DeleteRange(lo, hi uint64) error {
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	if hi >= last {
		var before raft.Log
		if lo == 0 || s.GetLog(lo-1, &before) != nil {
			before = raft.Log{} // nothing is left, or nothing that could be relied on
		}
		if err := s.end.lower(before.Index, before.Term); err != nil {
			return err
		}
	}
	return s.logStore.DeleteRange(lo, hi)
}
