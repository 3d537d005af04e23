// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
)

const (
	tmpSuffix     = ".tmp"     // not finished, or being removed
	damagedSuffix = ".damaged" // set aside
	metaName      = "meta.json"
	dataName      = "data"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshotMeta is meta.json. What the FSM's files are, and their checksums, is in the FSM's manifest.
type snapshotMeta struct {
	Raft raft.SnapshotMeta `json:"raft"`

	manifest int64 // size of the FSM's manifest, for the size of the offer
}

// write stores m durably in dir: one line of JSON, one line with its CRC.
func (m *snapshotMeta) write(dir string) (err error) {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	b = appendSum(append(b, '\n'), b)
	f, err := os.OpenFile(filepath.Join(dir, metaName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}

// readSnapshotMeta reads and checks dir/meta.json.
func readSnapshotMeta(dir string) (*snapshotMeta, error) {
	line, err := readSummed(filepath.Join(dir, metaName))
	if err != nil {
		return nil, err
	}
	m := &snapshotMeta{}
	if err := json.Unmarshal(line, m); err != nil {
		return nil, fmt.Errorf("%s: %w", metaName, err)
	}
	return m, m.measure(dir)
}

// measure looks up how large the manifest of the snapshot in dir is.
func (m *snapshotMeta) measure(dir string) error {
	fi, err := os.Stat(filepath.Join(dir, dataName, fsm.ManifestName))
	if err != nil {
		return err
	}
	m.manifest = fi.Size()
	return nil
}

// sumLength is what appendSum appends.
const sumLength = 9

// appendSum appends the CRC-32C of what as one line of hex.
func appendSum(b, what []byte) []byte {
	return fmt.Appendf(b, "%08x\n", crc32.Checksum(what, castagnoli))
}

// syncTree syncs every directory below root. The files are synced already; only regular ones are allowed.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return syncDir(p)
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is not a regular file", p)
		}
		return nil
	})
}

// syncDir makes the names in a directory durable. Some filesystems cannot, and say EINVAL.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	return errors.Join(err, f.Close())
}
