// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

var errPower = errors.New("no power")

// disk are files of the Raft log that lose what was not synced when the power fails: contents, and files whose first
// sync has not come. (Terms and votes are in bbolt, which is left out: its own tests pull the plug.)
type disk struct {
	types.VFS

	mu    sync.Mutex // protects the following, and the files' own fields
	off   bool
	files map[string]*diskFile // by path
}

func newDisk() *disk { return &disk{VFS: fs.New(), files: map[string]*diskFile{}} }

// diskFile remembers how to undo what was not synced.
type diskFile struct {
	types.WritableFile
	disk  *disk
	fresh bool // its name is not on disk
	undo  []change
}

type change struct {
	at  int64
	old []byte
}

// Create implements types.VFS.
func (d *disk) Create(dir, name string, size uint64) (types.WritableFile, error) {
	return d.open(dir, name, true, func() (types.WritableFile, error) { return d.VFS.Create(dir, name, size) })
}

// OpenWriter implements types.VFS.
func (d *disk) OpenWriter(dir, name string) (types.WritableFile, error) {
	return d.open(dir, name, false, func() (types.WritableFile, error) { return d.VFS.OpenWriter(dir, name) })
}

func (d *disk) open(dir, name string, fresh bool, open func() (types.WritableFile, error)) (types.WritableFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return nil, errPower
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	x := &diskFile{WritableFile: f, disk: d, fresh: fresh}
	d.files[filepath.Join(dir, name)] = x
	return x, nil
}

// Delete implements types.VFS. It is durable at once, as that of fs.FS is.
func (d *disk) Delete(dir, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return errPower
	}
	delete(d.files, filepath.Join(dir, name))
	return d.VFS.Delete(dir, name)
}

// WriteAt implements io.WriterAt.
func (f *diskFile) WriteAt(p []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.off {
		return 0, errPower
	}
	old := make([]byte, len(p))
	n, err := f.ReadAt(old, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	f.undo = append(f.undo, change{at, old[:n]})
	return f.WritableFile.WriteAt(p, at)
}

// Sync implements types.WritableFile.
func (f *diskFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.off {
		return errPower
	}
	if err := f.WritableFile.Sync(); err != nil {
		return err
	}
	f.undo, f.fresh = nil, false
	return nil
}

// fail ends the power: from now on nothing reaches the disk.
func (d *disk) fail() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
}

// restore takes back what was not synced; the process must have ended.
func (d *disk) restore() (lost int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, f := range d.files {
		if f.fresh {
			lost++
			err = errors.Join(err, os.Remove(path))
			continue
		}
		for _, c := range slices.Backward(f.undo) {
			lost++
			err = errors.Join(err, writeAt(path, c))
		}
	}
	d.off, d.files = false, map[string]*diskFile{}
	return lost, err
}

func writeAt(path string, c change) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(c.old, c.at)
	return errors.Join(err, f.Close())
}

// The power of all nodes fails under load, again and again: what was acknowledged is there afterwards.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	disks := map[string]*disk{}
	nodes := startCluster(t, func(c *cluster.Config) {
		d := newDisk()
		disks[c.NodeID] = d
		c.LogSegmentBytes = 64 << 10
		c.OnFatal = func(error) {} // the log disk is gone, as it should be
		c.SetLogFiles(d)
	})
	for _, n := range nodes { // all come back at once, so they must be where the others look for them
		n.cfg.ListenAddress, n.cfg.GossipListenAddress = n.Address(), n.GossipAddress()
	}
	for round := range 3 {
		next := make(chan int)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		have := map[int]bool{}
		for w := range 6 {
			wg.Go(func() {
				for i := range next {
					if _, err := nodes[w%3].write(ctx, i); err == nil {
						mu.Lock()
						have[i] = true
						mu.Unlock()
					}
				}
			})
		}
		i := round * 1_000_000
		var fail <-chan time.Time // from the first acknowledged write on
		for end, running := time.Now().Add(30*time.Second), true; running && time.Now().Before(end); {
			select {
			case next <- i:
				i++
			case <-fail:
				running = false
			case <-time.After(100 * time.Millisecond):
			}
			mu.Lock()
			if fail == nil && len(have) > 0 {
				fail = time.After(400 * time.Millisecond)
			}
			mu.Unlock()
		}
		for _, d := range disks {
			d.fail()
		}
		close(next)
		cancel()
		wg.Wait()
		lost := 0
		for _, n := range nodes {
			n.crash()
			n1, err := disks[n.cfg.NodeID].restore()
			require.NoError(t, err)
			lost += n1
		}
		for _, n := range nodes {
			n.start()
		}
		require.NotEmpty(t, have)
		for _, n := range nodes {
			n.waitReady()
			all, err := n.dump(labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
			require.NoError(t, err)
			for i := range have {
				key := labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)).String()
				require.Contains(t, all, key, "round %d: acknowledged, and lost with the power, on %s", round, n.ID())
			}
		}
		t.Logf("round %d: %d writes acknowledged, %d file changes lost with the power", round, len(have), lost)
	}
}
