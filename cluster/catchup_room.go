// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// A fetch may need more room than there is. It does not begin when it would not leave Config.MinFree, and when the disk
// gets full all the same, all that it has brought goes first: a node that is behind on a full disk would otherwise be
// kept from ever catching up by what it has fetched for that. The next offer that fits begins anew.

// shortage is an offer that did not fit, and how many bytes it needs besides those that are left alone.
type shortage struct {
	offer *offer
	bytes int64
}

// isFull tells that there is no room for what is to be written.
func isFull(err error) bool {
	return errors.Is(err, ErrDiskFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// room tells whether size bytes fit, less those that are in dir already.
func (f *fetch) room(size int64, dir string) error { return f.free(max(0, size-sizeOf(dir))) }

// free tells whether bytes more fit and leave Config.MinFree.
func (c *catchUp) free(bytes int64) error {
	d := c.node.disk
	free, err := d.statfs(c.store.dir)
	if err != nil || free >= bytes+d.min { // where it cannot be told, the disk's watcher warns
		return nil
	}
	return fmt.Errorf("%w: %d bytes free, the catch-up needs %d: %d to fetch and %d to leave alone (--storage.min-free)",
		ErrDiskFull, free, bytes+d.min, bytes, d.min)
}

// stillShort refuses an offer that has not fitted and fits no better now, without reading this disk once more.
func (c *catchUp) stillShort(o *offer) bool {
	if c.short == nil || !o.same(c.short.offer) {
		return false
	}
	err := c.free(c.short.bytes)
	if err == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.progress != nil {
		c.progress.fail(err)
	}
	if o.same(c.newest) {
		c.newest = nil
	}
	return true
}

// giveWay ends f for want of room. Its progress stays, so that the status tells what is missing.
func (c *catchUp) giveWay(f *fetch, err error) {
	st := f.progress.get()
	c.metrics.catchUps.WithLabelValues("disk_full").Inc()
	c.logger.Error("No room for the catch-up: what was fetched is removed, and the next offer of the leader is taken once there is room",
		append(f.progress.args(), "err", err)...)
	f.progress.fail(err)
	c.short = &shortage{f.offer, max(st.FetchBytes, f.offer.manifest.State.Size)}
	c.dropAll()
	f.progress.none()
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.offer.same(c.newest) {
		c.newest = nil
	}
}

// dropAll removes everything that was ever fetched.
func (c *catchUp) dropAll() {
	c.mu.Lock()
	c.ready = nil
	c.mu.Unlock()
	if _, err := c.store.dropFetched(); err != nil {
		c.logger.Error("Cannot remove what was fetched of another node's snapshot", "err", err)
	}
}

// diskChanged ends the fetch that runs when the disk has become too full.
func (c *catchUp) diskChanged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.node.disk.level() == diskCritical && c.cancel != nil {
		c.cancel(c.node.disk.err())
	}
	c.poke()
}

// yieldDisk removes, on a full disk, what waits to be installed: such a node takes no offer.
func (c *catchUp) yieldDisk() {
	if c.node.disk.level() != diskCritical {
		return
	}
	if _, err := os.Stat(c.dir); err != nil {
		return
	}
	c.logger.Error("The disk is full: what was fetched of another node's snapshot is removed", "dir", c.dir)
	c.dropAll()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newest = nil
	if c.progress != nil {
		c.progress.fail(c.node.disk.err())
		c.progress.none()
	}
}

// leastRoom is what opening the state takes: directories, and the first chunks.
const leastRoom = 16 << 20

// roomToOpen drops what was fetched when the disk has not even room for opening the state.
func (s *SnapshotStore) roomToOpen() error {
	free, err := freeBytes(s.dir)
	if err != nil || free >= leastRoom { // where it cannot be told, the disk's watcher warns
		return nil
	}
	s.logger.Warn("The disk is full: what was fetched of another node's snapshot is removed", "free", free)
	_, err = s.dropFetched()
	return err
}

// roomToStart refuses a start on a full disk. What was fetched before goes first: it may be what has filled the disk.
func (n *Node) roomToStart() error {
	err := n.disk.checkStart()
	if err == nil {
		return nil
	}
	dropped, dropErr := n.snapshots.dropFetched()
	if dropErr != nil || !dropped {
		return errors.Join(err, dropErr)
	}
	n.logger.Warn("There was no room to start: what was fetched of another node's snapshot is removed", "err", err)
	return n.disk.checkStart()
}

// dropFetched removes what was fetched of other nodes' snapshots and not installed, and tells whether there was any.
// Nothing may be fetched meanwhile.
func (s *SnapshotStore) dropFetched() (dropped bool, err error) {
	dir := filepath.Join(s.dir, incomingName)
	if _, err := os.Stat(dir); err != nil {
		return false, nil
	}
	// First the names that mark a snapshot as complete: what a crash leaves of one must not be taken for it.
	whole, err := filepath.Glob(filepath.Join(dir, "*", dataName))
	for _, name := range whole {
		err = errors.Join(err, os.Rename(name, name+tmpSuffix))
	}
	if err != nil {
		return false, err
	}
	return true, os.RemoveAll(dir)
}
