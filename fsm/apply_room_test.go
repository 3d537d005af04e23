// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/internal/filetest"
	"github.com/deucaliondb/deucalion/storage"
)

// smallDisk is a file system of its own, with room for a few megabytes and a few hundred files.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	filetest.Mount(t, dir, "size=16m,nr_inodes=300")
	return dir
}

// fillNames makes files in dir until there is no room for one more.
func fillNames(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, os.Mkdir(dir, 0o777))
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
		if errors.Is(err, syscall.ENOSPC) {
			return
		}
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
}

// waitsForRoom applies an entry on a full disk: it waits until filler, which it removes, is away.
func waitsForRoom(t *testing.T, f *FSM, filler string, apply func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		apply()
	}()
	select {
	case <-done:
		require.FailNow(t, "the entry waits for nothing", "%v", f.Err())
	case <-time.After(3 * roomRetry):
	}
	require.NoError(t, f.Err())
	require.NoError(t, os.RemoveAll(filler))
	select {
	case <-done:
	case <-time.After(deadline):
		require.FailNow(t, "the entry still waits")
	}
	require.NoError(t, f.Err())
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
	filetest.Fill(t, filler)
	waitsForRoom(t, f, filler, func() {
		l.apply(t, EncodeDelete(Delete{Mint: base, Maxt: base + 500, Selectors: [][]*labels.Matcher{equals("__name__", "a")}}))
	})
	require.Equal(t, "1000=2", floatsOf(t, f, name("a")), "the sample after the deleted one")
}

// An append that fills its memtable waits for room for the next one, and has it frozen then.
func TestFreezeWaitsForRoom(t *testing.T) {
	dir := smallDisk(t)
	f := openFSM(t, Options{Dir: dir, Storage: storage.Options{Manual: true}}, "")
	l := newLog(f)
	put(t, f, l, name("a"), base, 1)
	filler := filepath.Join(dir, "filler")
	fillNames(t, filler)
	waitsForRoom(t, f, filler, func() { put(t, f, l, name("a"), base+31*minute, 2) })
	worked, err := f.Storage().FlushOne()
	require.NoError(t, err)
	require.True(t, worked, "nothing was frozen")
	require.Len(t, f.BlockMetas(), 1)
	put(t, f, l, name("a"), base+32*minute, 3)
	require.Equal(t, "0=1 1860000=2 1920000=3", floatsOf(t, f, name("a")))
	live, err := filepath.Glob(filepath.Join(dir, "live", "mem-*"))
	require.NoError(t, err)
	require.Len(t, live, 2, "the active memtable and the next one; attempts leave nothing")
}

// An import waits for room, and gives what it gives on an empty disk.
func TestImportWaitsForRoom(t *testing.T) {
	dir := smallDisk(t)
	f := openFSM(t, Options{Dir: filepath.Join(dir, "data"), Storage: storage.Options{Manual: true}}, "")
	l := newLog(f)
	elsewhere, files := importFiles(t.TempDir()), importFiles(filepath.Join(dir, "imports"))
	f.SetImportFiles(files)
	put(t, f, l, seriesLabels(1), base+2*minute, 1)
	entry := importInto(t, f, elsewhere, [3]int64{1, 1, 7}, [3]int64{1, 2, 7}, [3]int64{1, 3, 7})
	require.NoError(t, os.CopyFS(string(files), os.DirFS(string(elsewhere))))
	filler := filepath.Join(dir, "filler")
	fillNames(t, filler)
	waitsForRoom(t, f, filler, func() { l.apply(t, entry) })
	require.Equal(t, "60000=7 120000=1 180000=7", floatsOf(t, f, seriesLabels(1)))
	st, ok := f.ImportOutcome(importName)
	require.True(t, ok)
	require.Equal(t, storage.ImportStats{Added: 2, Refused: 1}, st)
}

// TSDB writes chunks of samples out of order to the disk, and panics if it is full: they wait for room before.
func TestLateSamplesWaitForRoom(t *testing.T) {
	dir := smallDisk(t)
	f := openFSM(t, Options{Dir: dir, Storage: storage.Options{Manual: true}}, "")
	l := newLog(f)
	l.apply(t, EncodeSettings(Settings{OutOfOrderWindow: time.Hour}))
	put(t, f, l, name("a"), base+1000, 1000)
	filler := filepath.Join(dir, "filler")
	filetest.Fill(t, filler)
	put(t, f, l, name("a"), base+1001, 1001) // is written later, by a flush
	waitsForRoom(t, f, filler, func() {
		commit(t, f, l, func(b *Batch) {
			b.Series(nil, name("a"))
			for i := range int64(100) {
				b.Float(base+i, float64(i))
			}
		})
	})
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprintf("%d=%d", i, i))
	}
	want = append(want, "1000=1000", "1001=1001")
	require.Equal(t, strings.Join(want, " "), floatsOf(t, f, name("a")))
}

// The same with samples that are in order within their series, but hours behind those of others.
func TestSamplesFarBehindWaitForRoom(t *testing.T) {
	dir := smallDisk(t)
	f := openFSM(t, Options{Dir: dir, Storage: storage.Options{Manual: true}}, "")
	l := newLog(f)
	l.apply(t, EncodeSettings(Settings{OutOfOrderWindow: 24 * time.Hour}))
	put(t, f, l, name("b"), base, 1)
	filler := filepath.Join(dir, "filler")
	filetest.Fill(t, filler)
	put(t, f, l, name("c"), base-60*minute, 1) // goes with the newest ones
	waitsForRoom(t, f, filler, func() {
		commit(t, f, l, func(b *Batch) {
			b.Series(nil, name("a"))
			for i := range int64(100) {
				b.Float(base-180*minute+i, float64(i))
			}
		})
	})
	var want []string
	for i := range int64(100) {
		want = append(want, fmt.Sprintf("%d=%d", i-180*minute, i))
	}
	require.Equal(t, strings.Join(want, " "), floatsOf(t, f, name("a")))
}
