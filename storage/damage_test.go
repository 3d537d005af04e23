// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// storeWithDamage has a block of ten samples of series("a") with a bit flipped in the named file.
func storeWithDamage(t *testing.T, o Options, file string) (x *tester, name string) {
	x = openStore(t, o)
	x.fill("a", base, 10)
	x.freeze()
	if o.Manual {
		x.flush()
	}
	eventually(t, "the block", func() bool { return len(x.BlockMetas()) == 1 })
	name = filepath.Join(x.blocks[0].Dir(), filepath.FromSlash(file))
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	at := int64(len(b) - 5)
	if file == "index" { // the first series comes after the symbols, at a multiple of 16
		at = (5+4+int64(binary.BigEndian.Uint32(b[5:]))+4+15)/16*16 + 2
	}
	flipBit(t, name, at)
	return x, name
}

const someChunks, theIndex = "chunks/000001", "index"

// What the applier does says that it has met damage.
func TestApplierMeetsDamage(t *testing.T) {
	for name, tc := range map[string]struct {
		file string
		do   func(x *tester) error
	}{
		"look-up": {someChunks, func(x *tester) error {
			_, _, err := x.Lookup(nil, series("a"), base+1)
			return err
		}},
		"look-up of a series": {theIndex, func(x *tester) error {
			_, _, err := x.Lookup(nil, series("a"), base+1)
			return err
		}},
		"delete": {theIndex, func(x *tester) error { return x.Delete(base, base+1, named("a")) }},
		"import": {someChunks, func(x *tester) error {
			dir := filepath.Dir(x.opts.Dir)
			_, err := x.Import(dir, []BlockFiles{x.prepared(dir, base, 2, 1).BlockFiles})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			x, _ := storeWithDamage(t, Options{Manual: true, FreezeSpan: 1000 * time.Hour}, tc.file)
			require.ErrorIs(t, tc.do(x), ErrDamaged)
		})
	}
}

// Damage is looked for at once, also by a store that scrubs nothing by itself.
func TestScrubOnDemand(t *testing.T) {
	for name, meet := range map[string]func(x *tester){
		"look-up": func(x *tester) {
			_, _, err := x.Lookup(nil, series("a"), base+1)
			require.ErrorIs(t, err, ErrDamaged)
		},
		"clean": func(x *tester) {
			x.delete("a", base, base)
			require.ErrorContains(t, x.Clean(t.Context()), "checksum")
		},
		"asked for": func(x *tester) { x.Scrub() },
	} {
		t.Run(name, func(t *testing.T) {
			found := make(chan error, 1)
			x, name := storeWithDamage(t, Options{OnDamage: func(err error) { found <- err }}, someChunks)
			meet(x)
			select {
			case err := <-found:
				require.ErrorIs(t, err, ErrDamaged)
				require.ErrorContains(t, err, name)
			case <-time.After(deadline):
				require.FailNow(t, "the damage was not looked for")
			}
		})
	}
}
