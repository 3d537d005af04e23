// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/deucaliondb/deucalion/internal/plant"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// File is one file of a block, with a slash-separated path below the block's
// directory.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	CRC32C uint32 `json:"crc32c"`
}

// BlockFiles lists the files of one block, and where its samples come from.
type BlockFiles struct {
	ULID ulid.ULID `json:"ulid"`
	// MinTime and MaxTime (exclusive) bound the timestamps in milliseconds. Both
	// are zero if unknown.
	MinTime int64 `json:"min_time"`
	MaxTime int64 `json:"max_time"`
	// Pos is the position in the log (see Store.SetPosition) up to which samples
	// may be in the block; zero if unknown. Blocks differ from node to node, yet
	// who has applied the log up to Pos has all samples of the block.
	Pos   uint64 `json:"pos"`
	Files []File `json:"files"`
}

// blockFiles is a block outside the live set: where it lies and what it has.
type blockFiles struct {
	dir string
	BlockFiles
}

// sumBlock checksums the files of the block in dir. Checksums of immutable
// files are taken from known, when it has them, and so is the position; the other
// files must be as known lists them, if it does.
func sumBlock(dir string, known BlockFiles) (BlockFiles, error) {
	if err := known.checkMutable(dir); err != nil {
		return BlockFiles{}, err
	}
	meta, err := readMeta(dir)
	if err != nil {
		return BlockFiles{}, err
	}
	out := BlockFiles{ULID: known.ULID, MinTime: meta.MinTime, MaxTime: meta.MaxTime, Pos: known.Pos}
	err = walkFiles(dir, func(rel string, size int64) error {
		if i := slices.IndexFunc(known.Files, func(f File) bool { return f.Path == rel && f.Size == size }); i >= 0 && !mutable(rel) {
			out.Files = append(out.Files, known.Files[i])
			return nil
		}
		crc, err := sumFile(filepath.Join(dir, filepath.FromSlash(rel)))
		if err != nil {
			return err
		}
		out.Files = append(out.Files, File{Path: rel, Size: size, CRC32C: crc})
		return nil
	})
	return out, err
}

// readMeta reads what TSDB notes of the block in dir.
func readMeta(dir string) (tsdb.BlockMeta, error) {
	var m tsdb.BlockMeta
	b, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%w: %s: %w", ErrDamaged, filepath.Join(dir, "meta.json"), err)
	}
	return m, nil
}

func walkFiles(dir string, f func(rel string, size int64) error) error {
	return fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		return f(p, fi.Size())
	})
}

func sumFile(name string) (uint32, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h := crc32.New(castagnoli)
	if _, err := io.Copy(h, f); err != nil {
		return 0, fmt.Errorf("checksum %s: %w", name, err)
	}
	return h.Sum32(), nil
}

// Check compares the block below dir with the list: all files by size, and by
// checksum too, but for the chunk segments unless full is set: TSDB checks the
// CRC of each chunk when it reads it, so a damaged one is an error and never a
// wrong answer, while most of an index has no such guard. Reading all segments
// takes as long as the disk needs for all data.
//
// A file that sums knows is not read again; what is read gets into it, unless it
// is nil.
func (f BlockFiles) Check(dir string, full bool, sums Sums) error {
	for _, x := range f.Files {
		name := filepath.Join(dir, f.ULID.String(), filepath.FromSlash(x.Path))
		if err := x.check(name, full || !strings.HasPrefix(x.Path, chunksPrefix), sums); err != nil {
			return err
		}
	}
	return nil
}

const chunksPrefix = "chunks/"

// Sums are the checksums of files as they were read, by inode: directories with
// hard links to the same files are checked in one reading.
type Sums map[inode]uint32

type inode struct{ dev, ino uint64 }

// sum returns the checksum of a file.
func (s Sums) sum(name string, fi os.FileInfo) (uint32, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if s == nil || !ok {
		return sumFile(name)
	}
	id := inode{uint64(st.Dev), st.Ino}
	if crc, ok := s[id]; ok {
		return crc, nil
	}
	crc, err := sumFile(name)
	if err == nil {
		s[id] = crc
	}
	return crc, err
}

func (x File) check(name string, sum bool, sums Sums) error {
	fi, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if fi.Size() != x.Size {
		return fmt.Errorf("%w: %s has %d bytes, it was written with %d", ErrDamaged, name, fi.Size(), x.Size)
	}
	if !sum {
		return nil
	}
	if crc, err := sums.sum(name, fi); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	} else if crc != x.CRC32C && !plant.IgnoreChecksum {
		return fmt.Errorf("%w: %s has CRC-32C %08x, it was written with %08x", ErrDamaged, name, crc, x.CRC32C)
	}
	return nil
}

// Bytes is the size of all files.
func (f BlockFiles) Bytes() (n int64) {
	for _, x := range f.Files {
		n += x.Size
	}
	return n
}

// SameSamples tells whether two copies of a block hold the same chunks and the
// same index; their tombstones may differ.
func (f BlockFiles) SameSamples(o BlockFiles) bool {
	byPath := func(a, b File) int { return strings.Compare(a.Path, b.Path) }
	a, b := f.immutable().Files, o.immutable().Files
	slices.SortFunc(a, byPath)
	slices.SortFunc(b, byPath)
	return f.ULID == o.ULID && slices.Equal(a, b)
}

// linkBlock makes the directory dst with hard links to all files of src.
func linkBlock(src, dst string) error {
	if err := os.MkdirAll(dst, 0o777); err != nil {
		return err
	}
	return walkFiles(src, func(rel string, _ int64) error {
		to := filepath.Join(dst, filepath.FromSlash(rel))
		if d := path.Dir(rel); d != "." {
			if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
				return err
			}
		}
		return os.Link(filepath.Join(src, filepath.FromSlash(rel)), to)
	})
}

// SyncTree fsyncs every directory below dir, and dir, so that the names in them
// last.
func SyncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return SyncDir(p)
	})
}

// SyncDir fsyncs a directory, so that renames and links in it last.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
