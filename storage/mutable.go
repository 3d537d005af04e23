// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
)

// mutableNames are the files of a block that a delete replaces (by rename, so that
// hard links to the previous ones keep their content). The checksums of an
// installed block's ones are kept in memory: what is on the disk is no evidence of
// what was written.
func mutableNames() []string { return []string{"meta.json", "tombstones"} }

func mutable(rel string) bool { return slices.Contains(mutableNames(), rel) }

// split parts the immutable files from the others.
func split(fs []File) (immutable, changing []File) {
	for _, x := range fs {
		if mutable(x.Path) {
			changing = append(changing, x)
		} else {
			immutable = append(immutable, x)
		}
	}
	return immutable, changing
}

// immutable is f without the files that a delete replaces.
func (f BlockFiles) immutable() BlockFiles {
	f.Files, _ = split(f.Files)
	return f
}

// checkMutable compares the files that a delete replaces, as far as f lists them,
// with those of the block in dir.
func (f BlockFiles) checkMutable(dir string) error {
	for _, x := range f.Files {
		if mutable(x.Path) {
			if err := x.check(filepath.Join(dir, x.Path), true, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// listed is the block with all of its files as they should be. Store.mu must be
// held if they shall be those of one moment.
func (b *block) listed() BlockFiles {
	f := b.files
	f.Files = slices.Concat(f.Files, *b.changing.Load())
	return f
}

// apply deletes from the block. Store.mu must be held to write if it is installed.
func (b *block) apply(d deletion) error {
	err := d.apply(b.Block)
	b.note() // also after an error: some of the files may be new, and each of them is whole
	return err
}

// note takes the checksums of the files that have just been replaced. One that
// cannot be read keeps the former checksum, and a scrub tells.
func (b *block) note() {
	now := slices.Clone(*b.changing.Load())
	for _, name := range mutableNames() {
		x := File{Path: name}
		fi, err := os.Stat(filepath.Join(b.Dir(), name))
		if err == nil {
			x.Size = fi.Size()
			x.CRC32C, err = sumFile(filepath.Join(b.Dir(), name))
		}
		if err == nil {
			now = append(slices.DeleteFunc(now, func(o File) bool { return o.Path == name }), x)
		}
	}
	b.changing.Store(&now)
}

// suspect passes err on, and has the node repair what is damaged.
func (s *Store) suspect(err error) error {
	if errors.Is(err, ErrDamaged) {
		s.m.damaged.Set(1)
		s.opts.Logger.Error("A block on the disk is damaged", "err", err)
		s.opts.OnDamage(err)
	}
	return err
}
