// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A failed write is told from a failed read, and from a full disk.
func TestMarkWrite(t *testing.T) {
	// The memory of a process at an address where nothing is gives EIO to both.
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer mem.Close()
	_, written := mem.Write([]byte{1})
	_, read := mem.Read(make([]byte, 1))
	require.ErrorIs(t, written, syscall.EIO)
	require.ErrorIs(t, read, syscall.EIO)
	cleaned := errors.Join(&fs.PathError{Op: "remove", Path: "x", Err: syscall.ENOTEMPTY}, fmt.Errorf("write: %w", written))
	for _, err := range []error{written, cleaned, fmt.Errorf("sync: %w", syscall.EIO), &fs.PathError{Op: "sync", Path: "x", Err: syscall.EIO}} {
		require.ErrorIs(t, MarkWrite(err), ErrWrite)
		require.ErrorIs(t, MarkWrite(err), syscall.EIO)
	}
	for _, err := range []error{nil, read, syscall.ENOSPC, &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, errors.Join(read, syscall.ENOSPC)} {
		require.Equal(t, err, MarkWrite(err))
	}
}

// What the disk has failed is told, and not tried again.
func TestFailedFlushIsNotRetried(t *testing.T) {
	var tries atomic.Int64
	told := make(chan error, 10)
	x := openStore(t, Options{
		OnWriteError: func(err error) { told <- err },
		afterWrite:   func(error) error { tries.Add(1); return &fs.PathError{Op: "sync", Path: "index", Err: syscall.EIO} },
	})
	x.fill("a", base, 10)
	x.freeze()
	select {
	case err := <-told:
		require.ErrorIs(t, err, ErrWrite)
	case <-time.After(deadline):
		require.FailNow(t, "nobody is told")
	}
	x.kick(x.kickFlush)
	x.add("a", base+60*60_000, 1)
	x.freeze()
	time.Sleep(2 * retryMin) // when another failure would have been tried again
	require.EqualValues(t, 1, tries.Load())
	require.Empty(t, told)
	require.NotEmpty(t, x.all(), "queries go on")
}
