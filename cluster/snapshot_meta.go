// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/raft"
)

const (
	tmpSuffix     = ".tmp"     // not finished, or being removed
	damagedSuffix = ".damaged" // set aside
	metaName      = "meta.json"
	dataName      = "data"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshotFile is one file below data/. Its size is part of the stream's size, so the files of a snapshot never
// change: they are hard links to immutable files.
type snapshotFile struct {
	Path string `json:"path"` // slashes
	Size int64  `json:"size"`
	// CRC is the CRC-32C of a file that came over the network. One that was linked here is not read for it; its
	// own checksum is in the FSM's manifest, and it is summed while it is streamed.
	CRC *uint32 `json:"crc32c,omitempty"`
}

// snapshotMeta is meta.json.
type snapshotMeta struct {
	Raft  raft.SnapshotMeta `json:"raft"`
	Files []snapshotFile    `json:"files"`
}

// write stores m durably in dir: one line of JSON, one line with its CRC.
func (m *snapshotMeta) write(dir string) (err error) {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	b = fmt.Appendf(b, "\n%08x\n", crc32.Checksum(b, castagnoli))
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
	b, err := os.ReadFile(filepath.Join(dir, metaName))
	if err != nil {
		return nil, err
	}
	line, sum, _ := bytes.Cut(b, []byte("\n"))
	if string(sum) != fmt.Sprintf("%08x\n", crc32.Checksum(line, castagnoli)) {
		return nil, fmt.Errorf("%s: wrong checksum", metaName)
	}
	m := &snapshotMeta{}
	if err := json.Unmarshal(line, m); err != nil {
		return nil, fmt.Errorf("%s: %w", metaName, err)
	}
	return m, nil
}

// verifyFiles compares the listed files with the disk, by size.
func (m *snapshotMeta) verifyFiles(dir string) error {
	for _, f := range m.Files {
		fi, err := os.Stat(filepath.Join(dir, dataName, filepath.FromSlash(f.Path)))
		if err != nil {
			return err
		}
		if fi.Size() != f.Size {
			return fmt.Errorf("%s: %d bytes, want %d", f.Path, fi.Size(), f.Size)
		}
	}
	return nil
}

// syncTree lists the regular files below root and syncs every directory. The files themselves are synced already.
func syncTree(root string) ([]snapshotFile, error) {
	var files []snapshotFile
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return syncDir(p)
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if !fi.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", p)
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		files = append(files, snapshotFile{Path: filepath.ToSlash(rel), Size: fi.Size()})
		return nil
	})
	return files, err
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
