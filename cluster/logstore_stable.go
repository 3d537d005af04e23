// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/deucaliondb/deucalion/fsm"
)

// Raft's keys in the stable store.
var (
	keyCurrentTerm  = []byte("CurrentTerm")
	keyLastVoteTerm = []byte("LastVoteTerm")
	keyLastVoteCand = []byte("LastVoteCand")
)

// sumStable gives every value of the stable store a checksum: a flipped bit in a term or a vote would let this node vote
// twice. The stored value is a version byte, the CRC-32C of key and value, and the value.
type sumStable struct {
	raft.StableStore
	file string
}

func stableSum(k, v []byte) uint32 {
	return crc32.Update(crc32.Update(uint32(len(k)), castagnoli, k), castagnoli, v)
}

// Set implements raft.StableStore.
func (s sumStable) Set(k, v []byte) error {
	b := binary.BigEndian.AppendUint32([]byte{sumVersion}, stableSum(k, v))
	return s.StableStore.Set(k, append(b, v...))
}

// Get implements raft.StableStore.
func (s sumStable) Get(k []byte) ([]byte, error) {
	b, err := s.StableStore.Get(k)
	if err != nil {
		return nil, err
	}
	v, err := openStable(k, b)
	if errors.Is(err, fsm.ErrNewer) {
		return nil, fmt.Errorf("%s: %w", s.file, err)
	}
	if err != nil {
		return nil, &damage{partStable, s.file, err}
	}
	return v, nil
}

func openStable(k, b []byte) ([]byte, error) {
	err := errors.New("no checksum")
	if len(b) >= sumBytes {
		v := b[sumBytes:]
		sum := stableSum(k, v)
		switch {
		case b[0] != sumVersion:
			err = otherVersion(b, sum)
		case binary.BigEndian.Uint32(b[1:]) == sum:
			return v, nil
		default:
			err = errSum
		}
	}
	return nil, fmt.Errorf("value of %q: %w", k, err)
}

// SetUint64 implements raft.StableStore.
func (s sumStable) SetUint64(k []byte, v uint64) error {
	return s.Set(k, binary.BigEndian.AppendUint64(nil, v))
}

// GetUint64 implements raft.StableStore.
func (s sumStable) GetUint64(k []byte) (uint64, error) {
	b, err := s.Get(k)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, &damage{partStable, s.file, fmt.Errorf("value of %q has %d bytes", k, len(b))}
	}
	return binary.BigEndian.Uint64(b), nil
}

// inspectStable verifies all of a stable store that has been in use: each value, and that none is missing which the
// others imply. A key that is gone is otherwise one that was never set.
func inspectStable(tx *bbolt.Tx) error {
	known := map[string]bool{
		string(keyLogStore): false, string(keyHealEntry): false,
		string(keyCurrentTerm): false, string(keyLastVoteTerm): false, string(keyLastVoteCand): false,
	}
	conf := tx.Bucket([]byte("conf"))
	if conf == nil {
		if k, _ := tx.Cursor().First(); k != nil {
			return errors.New("the bucket is missing")
		}
		return nil // a crash while it was made
	}
	n := 0
	err := conf.ForEach(func(k, v []byte) error {
		n++
		if _, ok := known[string(k)]; !ok {
			return fmt.Errorf("unknown key %q", k)
		}
		known[string(k)] = true
		_, err := openStable(k, v)
		return err
	})
	switch {
	case err != nil || n == 0:
		return err
	case !known[string(keyLogStore)],
		known[string(keyLastVoteTerm)] && !known[string(keyCurrentTerm)],
		known[string(keyLastVoteCand)] && !known[string(keyLastVoteTerm)]: // Raft writes them in this order
		return errors.New("a key is missing")
	}
	return nil
}

// stableGet returns nil for a key that was never set.
func stableGet(s raft.StableStore, key []byte) ([]byte, error) {
	b, err := s.Get(key)
	if err != nil && err.Error() == raftboltdb.ErrKeyNotFound.Error() {
		return nil, nil
	}
	return b, err
}

// stableUint64 returns 0 for a key that was never set.
func stableUint64(s raft.StableStore, key []byte) (uint64, error) {
	v, err := s.GetUint64(key)
	if err != nil && err.Error() == raftboltdb.ErrKeyNotFound.Error() {
		return 0, nil
	}
	return v, err
}
