// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/deucaliondb/deucalion/fsm"
)

// openBolt opens a bbolt store that is durable: only the free list, which can be rebuilt, is not written. Writing it
// costs more than the entries themselves once the log has been truncated a few times. What is on the disk is checked
// first, see checkBolt; inspect may be nil. The error is a *damage of part if the file is to blame.
func openBolt(path, part string, inspect func(*bbolt.Tx) error) (*raftboltdb.BoltStore, error) {
	options := bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}
	if fi, err := os.Stat(path); err == nil && fi.Size() > 0 {
		if err := inspectBolt(path, options, inspect); err != nil {
			return nil, boltError(path, part, err)
		}
	}
	var b *raftboltdb.BoltStore
	err := recovered(func() (err error) {
		b, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &options})
		return err
	})
	if err != nil {
		return nil, boltError(path, part, err)
	}
	return b, nil
}

func boltError(path, part string, err error) error {
	switch {
	case errors.Is(err, bbolt.ErrTimeout):
		return fmt.Errorf("%s is locked: another process uses this data directory: %w", path, err)
	case isIO(err), errors.Is(err, fsm.ErrNewer):
		return fmt.Errorf("%s: %w", path, err)
	}
	return &damage{part, path, err}
}

// isIO tells that the system refused something, which says nothing about what is in the files. Other errors of it do:
// a file that is missing or already there, an impossible offset.
func isIO(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains([]syscall.Errno{
		syscall.EACCES, syscall.EBUSY, syscall.EDQUOT, syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
		syscall.ENOSPC, syscall.EPERM, syscall.EROFS,
	}, errno)
}

var errPanicked = errors.New("panic")

// recovered turns a panic of fn into an error. The stores take what they read on trust: lengths, offsets, page numbers
// into a memory map.
func recovered(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errPanicked, r)
		}
	}()
	return fn()
}

// inspectBolt checks a file while nobody can write to it.
func inspectBolt(path string, options bbolt.Options, inspect func(*bbolt.Tx) error) error {
	options.ReadOnly = true
	var db *bbolt.DB
	err := recovered(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &options)
		return err
	})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := checkBolt(path); err != nil || inspect == nil {
		return err
	}
	return recovered(func() error { return db.View(inspect) })
}

// Layout of a bbolt file, version 2: pages, each with a header of 16 bytes (id, flags, count, overflow), the first two
// of them meta pages.
const (
	boltMagic    = 0xED0CDAED
	boltHead     = 16
	boltElement  = 16 // of a leaf or a branch
	boltBranch   = 0x01
	boltLeaf     = 0x02
	boltFreelist = 0x10
	boltNoList   = ^uint64(0)
)

// boltPages walks a bbolt file as opening it for writing does, which panics on a goroutine of its own at the first page
// that is not what it should be, and so ends the process.
type boltPages struct {
	f        *os.File
	size     uint64 // of the file
	pageSize uint64
	high     uint64          // pages in use
	seen     map[uint64]bool // pages reached
}

// checkBolt returns an error if a meta page is damaged (bbolt would silently go back to the transaction before), or if
// a page is reached twice or not at all, or is of the wrong kind. It does not know what values should be.
func checkBolt(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	p := &boltPages{f: f, size: uint64(fi.Size()), seen: map[uint64]bool{0: true, 1: true}}
	root, freelist, err := p.meta()
	if err != nil {
		return err
	}
	if err := p.walk(root); err != nil || freelist == boltNoList {
		return err
	}
	return p.free(freelist)
}

// meta reads both meta pages and returns what the newer one says.
func (p *boltPages) meta() (root, freelist uint64, err error) {
	le := binary.LittleEndian
	first, err := p.read(0, 4096)
	if err != nil {
		return 0, 0, err
	}
	p.pageSize = uint64(le.Uint32(first[boltHead+8:]))
	if p.pageSize < 1024 || p.pageSize > 1<<16 {
		return 0, 0, errors.New("meta page 0: wrong page size")
	}
	var newest uint64
	for i := range uint64(2) {
		b, err := p.read(i*p.pageSize, p.pageSize)
		if err != nil {
			return 0, 0, err
		}
		m := b[boltHead:]
		sum := fnv.New64a()
		_, _ = sum.Write(m[:56])
		if le.Uint32(m) != boltMagic || le.Uint64(m[56:]) != sum.Sum64() {
			return 0, 0, fmt.Errorf("meta page %d: %w", i, errSum)
		}
		if tx := le.Uint64(m[48:]); i == 0 || tx > newest {
			newest, root, freelist, p.high = tx, le.Uint64(m[16:]), le.Uint64(m[32:]), le.Uint64(m[40:])
		}
	}
	if p.high > p.size/p.pageSize {
		return 0, 0, errors.New("shorter than its meta page says")
	}
	return root, freelist, nil
}

// read returns n bytes at off. It counts what is there before it makes room for them.
func (p *boltPages) read(off, n uint64) ([]byte, error) {
	if off > p.size || n > p.size-off {
		return nil, errors.New("too short")
	}
	b := make([]byte, n)
	_, err := p.f.ReadAt(b, int64(off))
	return b, err
}

// page returns page id with its overflow, and takes note of it.
func (p *boltPages) page(id uint64) ([]byte, error) {
	if id < 2 || id >= p.high {
		return nil, fmt.Errorf("page %d: out of bounds", id)
	}
	b, err := p.read(id*p.pageSize, boltHead)
	if err != nil {
		return nil, err
	}
	overflow := uint64(binary.LittleEndian.Uint32(b[12:]))
	if got := binary.LittleEndian.Uint64(b); got != id || overflow >= p.high-id {
		return nil, fmt.Errorf("page %d: damaged header", id)
	}
	for i := range overflow + 1 {
		if p.seen[id+i] {
			return nil, fmt.Errorf("page %d: reached twice", id+i)
		}
		p.seen[id+i] = true
	}
	return p.read(id*p.pageSize, (overflow+1)*p.pageSize)
}

// walk follows a tree, and the trees of the buckets in it.
func (p *boltPages) walk(id uint64) error {
	b, err := p.page(id)
	if err != nil {
		return err
	}
	return p.elements(b, fmt.Sprintf("page %d", id))
}

// elements follows the elements of a page, or of a small bucket that is stored as one within a value.
func (p *boltPages) elements(b []byte, name string) error {
	le := binary.LittleEndian
	flags, count := le.Uint16(b[8:]), uint64(le.Uint16(b[10:]))
	if flags != boltBranch && flags != boltLeaf {
		return fmt.Errorf("%s: neither branch nor leaf", name)
	}
	if boltHead+count*boltElement > uint64(len(b)) {
		return fmt.Errorf("%s: too many elements", name)
	}
	for i := range count {
		at := boltHead + i*boltElement
		e := b[at:]
		if flags == boltBranch {
			pos, size := uint64(le.Uint32(e)), uint64(le.Uint32(e[4:]))
			if at+pos+size > uint64(len(b)) {
				return fmt.Errorf("%s: element %d is out of bounds", name, i)
			}
			if err := p.walk(le.Uint64(e[8:])); err != nil {
				return err
			}
			continue
		}
		pos, ksize, vsize := uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))
		if at+pos+ksize+vsize > uint64(len(b)) || le.Uint32(e) > 1 {
			return fmt.Errorf("%s: element %d is out of bounds", name, i)
		}
		if le.Uint32(e) == 1 {
			if err := p.bucket(b[at+pos+ksize:at+pos+ksize+vsize], name); err != nil {
				return err
			}
		}
	}
	return nil
}

// bucket follows the value of a bucket: root page and sequence, then the page itself if it is small.
func (p *boltPages) bucket(v []byte, name string) error {
	if len(v) < 16 {
		return fmt.Errorf("%s: bucket of %d bytes", name, len(v))
	}
	if root := binary.LittleEndian.Uint64(v); root != 0 {
		return p.walk(root)
	}
	if len(v) < 16+boltHead {
		return fmt.Errorf("%s: small bucket of %d bytes", name, len(v))
	}
	return p.elements(v[16:], name+", small bucket")
}

// free checks that the list of free pages holds all that was not reached, and nothing else: bbolt writes into them.
func (p *boltPages) free(id uint64) error {
	b, err := p.page(id)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	if le.Uint16(b[8:]) != boltFreelist {
		return fmt.Errorf("page %d: not the free list", id)
	}
	count, at := uint64(le.Uint16(b[10:])), uint64(boltHead)
	if count == 0xFFFF {
		count, at = le.Uint64(b[at:]), at+8
	}
	if count > uint64(len(b)) || at+8*count > uint64(len(b)) {
		return errors.New("free list: too long")
	}
	for i := range count {
		free := le.Uint64(b[at+8*i:])
		if free >= p.high || p.seen[free] {
			return fmt.Errorf("free list: page %d is not free", free)
		}
		p.seen[free] = true
	}
	if uint64(len(p.seen)) != p.high {
		return fmt.Errorf("free list: %d pages are missing", p.high-uint64(len(p.seen)))
	}
	return nil
}
