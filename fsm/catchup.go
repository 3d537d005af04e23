// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/deucaliondb/deucalion/internal/plant"
	"github.com/deucaliondb/deucalion/storage"
)

// maxHeader bounds the header of a state file: ids of requests and deletes, all
// bounded themselves.
const maxHeader = 16 << 20

// Base is a snapshot on this node's disk, of which a catch-up takes blocks.
type Base struct {
	dir     string
	header  header
	good    []storage.BlockFiles
	damaged []storage.BlockFiles
	errs    []error
}

// OpenBase reads the snapshot in dir and compares every file with its checksum.
// Damaged blocks are left out; what was in them is taken from elsewhere. The error
// tells of a manifest or a state that cannot be used.
func OpenBase(ctx context.Context, dir string) (*Base, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	if m.Version < 2 {
		return nil, fmt.Errorf("%w: %s: format version 1 tells not where blocks come from", ErrSnapshot, dir)
	}
	if err := m.State.CheckFile(dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	b := &Base{dir: dir}
	if b.header, err = readHeader(filepath.Join(dir, stateName)); err != nil {
		return nil, err
	}
	for _, f := range m.Blocks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := f.Check(filepath.Join(dir, blocksName), true, nil); err != nil {
			b.damaged = append(b.damaged, f)
			b.errs = append(b.errs, err)
			continue
		}
		b.good = append(b.good, f)
	}
	return b, nil
}

// Index is the log index of the snapshot.
func (b *Base) Index() uint64 { return b.header.Index }

// Damaged tells what is wrong with the blocks that cannot be used.
func (b *Base) Damaged() []error { return b.errs }

// CatchUp says how this node comes by the state of another node's snapshot: some
// blocks are fetched from there, some are kept.
type CatchUp struct {
	Fetch []storage.BlockFiles // of the offered snapshot
	Keep  []storage.BlockFiles // of the base
	// Reason says why there is no base although one was given, else "".
	Reason string

	offer   Manifest
	base    *Base // nil: nothing is kept
	deletes []storage.Deletion
}

// PlanCatchUp decides what of the offered snapshot is missing here. statePath is
// the offered snapshot's state file, which has been fetched and compared with its
// checksum; base may be nil.
//
// Blocks are made by each node for itself, so the two nodes' blocks cannot be told
// to be equal by name. But base holds, by its nature, all samples logged up to its
// index S. So an offered block whose position is at most S has nothing new, however
// it was merged, and a block with a higher one is fetched. A sample that is both in
// a kept block and in a fetched one has the same value in both: at the offered
// index there is one, and the deletes after S, which the offer's state remembers,
// are applied to the kept blocks. All of their samples are older than those deletes.
func PlanCatchUp(offer Manifest, statePath string, base *Base) (*CatchUp, error) {
	h, err := readHeader(statePath)
	if err != nil {
		return nil, err
	}
	if h.Index != offer.Index {
		return nil, fmt.Errorf("%w: manifest and state are of index %d and %d", ErrSnapshot, offer.Index, h.Index)
	}
	c := &CatchUp{offer: offer, base: base}
	if base != nil {
		if c.Reason = useless(base.header, h, offer.Version); c.Reason != "" {
			c.base = nil
		}
	}
	if c.base == nil {
		c.Fetch = offer.Blocks
		return c, nil
	}
	if c.deletes, err = deletesAfter(h.Deletes, base.Index()); err != nil {
		return nil, err
	}
	if plant.ForgetMissedDeletes {
		c.deletes = nil
	}
	for _, o := range offer.Blocks {
		if !base.has(o) {
			c.Fetch = append(c.Fetch, o)
		}
	}
	for _, b := range base.good {
		if b.MaxTime > h.Cutoff && c.needed(b) {
			c.Keep = append(c.Keep, b)
		}
	}
	return c, nil
}

// useless tells why a base with the header b is none for the offer h.
func useless(b, h header, version uint32) string {
	switch {
	case version < 2 || h.DeletesSince == nil:
		return "the offered snapshot does not tell where its blocks come from"
	case b.Settings.ClusterID != h.Settings.ClusterID:
		return "it is of cluster " + b.Settings.ClusterID
	case b.Index > h.Index:
		return "it is newer than the offered one"
	case *h.DeletesSince > b.Index:
		return "deletes that it has missed are no longer remembered"
	}
	return ""
}

// has tells whether all samples of the offered block are in good blocks of b.
func (b *Base) has(o storage.BlockFiles) bool {
	if slices.ContainsFunc(b.good, o.SameSamples) {
		return true
	}
	return o.Pos > 0 && o.Pos <= b.Index() &&
		!slices.ContainsFunc(b.damaged, func(d storage.BlockFiles) bool { return overlap(d, o) })
}

// needed tells whether an offered block that is not fetched may have its samples in
// the kept block b.
func (c *CatchUp) needed(b storage.BlockFiles) bool {
	fetched := func(o storage.BlockFiles) bool {
		return slices.ContainsFunc(c.Fetch, func(f storage.BlockFiles) bool { return f.ULID == o.ULID })
	}
	return slices.ContainsFunc(c.offer.Blocks, func(o storage.BlockFiles) bool { return overlap(b, o) && !fetched(o) })
}

func overlap(a, b storage.BlockFiles) bool { return a.MinTime < b.MaxTime && b.MinTime < a.MaxTime }

// FetchBytes is the size of what is fetched.
func (c *CatchUp) FetchBytes() int64 { return sumBytes(c.Fetch) }

// KeepBytes is the size of what is linked.
func (c *CatchUp) KeepBytes() int64 { return sumBytes(c.Keep) }

func sumBytes(bs []storage.BlockFiles) (n int64) {
	for _, b := range bs {
		n += b.Bytes()
	}
	return n
}

// Assemble makes the snapshot in dst, an existing empty directory on the file system
// of the others. fetched has a directory for each block of Fetch, which the caller
// has compared with the checksums; all files are hard-linked. When Assemble returns,
// everything below dst is on disk.
//
// A clean that this node has missed has not touched the blocks that it keeps, and is no longer in the log. So if they
// hold deleted samples, the snapshot asks for a clean when it is restored.
func (c *CatchUp) Assemble(ctx context.Context, dst, fetched, statePath string) error {
	blocks := filepath.Join(dst, blocksName)
	if err := os.Mkdir(blocks, 0o777); err != nil {
		return err
	}
	m := c.offer
	m.Version, m.Blocks = snapshotVersion, nil
	link := func(src string, fs []storage.BlockFiles, dels []storage.Deletion, kept bool) error {
		for _, f := range fs {
			if err := ctx.Err(); err != nil {
				return err
			}
			made, err := storage.LinkBlock(src, blocks, f, dels)
			if err != nil {
				return err
			}
			m.Blocks = append(m.Blocks, made)
			stones, err := made.Tombstoned(blocks)
			if err != nil {
				return err
			}
			m.Clean = m.Clean || kept && stones
		}
		return nil
	}
	if err := link(fetched, c.Fetch, nil, false); err != nil {
		return fmt.Errorf("link fetched blocks: %w", err)
	}
	if c.base != nil {
		if err := link(filepath.Join(c.base.dir, blocksName), c.Keep, c.deletes, true); err != nil {
			return fmt.Errorf("link kept blocks: %w", err)
		}
	}
	if err := os.Link(statePath, filepath.Join(dst, stateName)); err != nil {
		return err
	}
	if err := storage.SyncTree(dst); err != nil {
		return err
	}
	if err := writeManifest(dst, m); err != nil {
		return err
	}
	return storage.SyncDir(dst)
}

// readHeader reads the first section of a state file.
func readHeader(name string) (header, error) {
	f, err := os.Open(name)
	if err != nil {
		return header{}, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return header{}, fmt.Errorf("%w: %s: %w", ErrSnapshot, name, err)
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if section(head[0]) != stateHeader || n > maxHeader {
		return header{}, fmt.Errorf("%w: %s does not begin with a header", ErrSnapshot, name)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return header{}, fmt.Errorf("%w: %s: %w", ErrSnapshot, name, err)
	}
	var h header
	if err := json.Unmarshal(b, &h); err != nil {
		return header{}, fmt.Errorf("%w: %s: %w", ErrSnapshot, name, err)
	}
	return h, nil
}
