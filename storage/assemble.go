// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"path/filepath"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
)

// Deletion is a delete of the samples in the closed range [Mint, Maxt] of every
// series that one of the selectors matches.
type Deletion struct {
	Mint, Maxt int64
	Selectors  [][]*labels.Matcher
}

// LinkBlock hard-links block f from the directory src into the directory dst,
// applies the deletes to the new one, and returns its files. The old one stays
// as it is: TSDB replaces what a delete changes. Names in dst are not synced yet,
// see SyncTree.
func LinkBlock(src, dst string, f BlockFiles, dels []Deletion) (BlockFiles, error) {
	to := filepath.Join(dst, f.ULID.String())
	if err := linkBlock(filepath.Join(src, f.ULID.String()), to); err != nil {
		return BlockFiles{}, err
	}
	if len(dels) > 0 {
		if err := f.checkMutable(to); err != nil {
			return BlockFiles{}, err
		}
		f = f.immutable()
		err := withBlock(to, func(b *tsdb.Block) error {
			for _, x := range dels {
				d := deletion{x.Mint, x.Maxt, x.Selectors}
				if !d.overlaps(b.MinTime(), b.MaxTime()-1) {
					continue
				}
				if err := d.apply(b); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return BlockFiles{}, err
		}
	}
	return sumBlock(to, f)
}

// Tombstoned tells whether the block below dir holds deleted samples.
func (f BlockFiles) Tombstoned(dir string) (bool, error) {
	m, err := readMeta(filepath.Join(dir, f.ULID.String()))
	return m.Stats.NumTombstones > 0, err
}

// CheckFile compares the file in dir with x, by size and checksum.
func (x File) CheckFile(dir string) error {
	return x.check(filepath.Join(dir, filepath.FromSlash(x.Path)), true, nil)
}
