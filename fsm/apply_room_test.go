// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/storage"
)

// smallDisk is a file system of its own.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("no file system of its own: mount: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// fillDisk writes until nothing more fits.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else {
			require.NoError(t, err)
		}
	}
}

// A delete that is committed and finds the disk full waits for room; it does not stop the state machine for good.
func TestDeleteWaitsForRoom(t *testing.T) {
	dir := smallDisk(t)
	f := openFSM(t, Options{Dir: dir, Storage: storage.Options{Manual: true}}, "")
	l := newLog(f)
	put(t, f, l, name("a"), base, 1)
	require.NoError(t, f.Storage().Freeze())
	_, err := f.Storage().FlushOne()
	require.NoError(t, err)
	put(t, f, l, name("a"), base+1000, 2)

	filler := filepath.Join(dir, "filler")
	fillDisk(t, filler)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.apply(t, EncodeDelete(Delete{Mint: base, Maxt: base + 500, Selectors: [][]*labels.Matcher{equals("__name__", "a")}}))
	}()
	select {
	case <-done:
		require.FailNow(t, "the disk is not full enough for this test", "%v", f.Err())
	case <-time.After(3 * roomRetry):
	}
	require.NoError(t, f.Err())
	require.NoError(t, os.Remove(filler))
	select {
	case <-done:
	case <-time.After(deadline):
		require.FailNow(t, "the delete still waits")
	}
	require.NoError(t, f.Err())
	require.Equal(t, "1000=2", floatsOf(t, f, name("a")), "the sample after the deleted one")
}
