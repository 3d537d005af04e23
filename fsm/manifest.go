// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/deucaliondb/deucalion/internal/plant"
	"github.com/deucaliondb/deucalion/storage"
)

// Manifest describes a snapshot directory: all its files with their checksums. It
// is written last, as one line of JSON and one line with its CRC-32C in hex.
type Manifest struct {
	Version uint32               `json:"version"`
	Index   uint64               `json:"index"`
	Term    uint64               `json:"term"`
	State   storage.File         `json:"state"`
	Blocks  []storage.BlockFiles `json:"blocks"`
	// Clean tells that who restores it shall rewrite the blocks with deleted samples, see CatchUp.Assemble.
	Clean bool `json:"clean,omitempty"`
}

// Bytes is the size of all files that the manifest lists.
func (m Manifest) Bytes() int64 {
	n := m.State.Size
	for _, b := range m.Blocks {
		n += b.Bytes()
	}
	return n
}

// ParseManifest checks and decodes the content of a manifest file.
func ParseManifest(b []byte) (Manifest, error) {
	body, sum, ok := bytes.Cut(b, []byte("\n"))
	if !ok || string(sum) != fmt.Sprintf("%08x\n", crc32.Checksum(body, castagnoli)) && !plant.IgnoreChecksum {
		return Manifest{}, fmt.Errorf("%w: %s does not match its checksum", ErrSnapshot, ManifestName)
	}
	var m Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return Manifest{}, fmt.Errorf("%w: %s: %w", ErrSnapshot, ManifestName, err)
	}
	if m.Version < 1 || m.Version > snapshotVersion {
		return Manifest{}, fmt.Errorf("%w, %w: %s has format version %d, this node knows 1 to %d and must be upgraded",
			ErrSnapshot, ErrNewer, ManifestName, m.Version, snapshotVersion)
	}
	if m.State.Path != stateName {
		return Manifest{}, fmt.Errorf("%w: state file is named %q", ErrSnapshot, m.State.Path)
	}
	return m, m.checkPaths()
}

// checkPaths keeps a manifest of another node from naming files elsewhere.
func (m Manifest) checkPaths() error {
	for _, b := range m.Blocks {
		for _, f := range b.Files {
			if !filepath.IsLocal(filepath.FromSlash(f.Path)) || f.Size < 0 {
				return fmt.Errorf("%w: block file %q of %d bytes", ErrSnapshot, f.Path, f.Size)
			}
		}
	}
	return nil
}

// ReadManifest reads the manifest of the snapshot in dir, and no other file.
func ReadManifest(dir string) (Manifest, error) {
	name := filepath.Join(dir, ManifestName)
	b, err := os.ReadFile(name)
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	m, err := ParseManifest(b)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

func writeManifest(dir string, m Manifest) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	b = fmt.Appendf(append(b, '\n'), "%08x\n", crc32.Checksum(b, castagnoli))
	return writeSynced(filepath.Join(dir, ManifestName), b)
}

// VerifySnapshot checks that the snapshot in dir can be used: the manifest, the
// state and the blocks' indexes by their checksums, chunk segments by size only
// unless full is set (see storage.BlockFiles.Check). The error names the file.
func VerifySnapshot(dir string, full bool) error {
	_, err := verify(dir, full, nil)
	return err
}

// SnapshotVerifier returns VerifySnapshot for several snapshots, which reads a file
// that is in more than one of them once.
func SnapshotVerifier(full bool) func(dir string) error {
	sums := storage.Sums{}
	return func(dir string) error {
		_, err := verify(dir, full, sums)
		return err
	}
}

func verify(dir string, full bool, sums storage.Sums) (Manifest, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return Manifest{}, err
	}
	if err := m.State.CheckFile(dir); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	for _, f := range m.Blocks {
		if err := f.Check(filepath.Join(dir, blocksName), full, sums); err != nil {
			return Manifest{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
		}
	}
	return m, nil
}
