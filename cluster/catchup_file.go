// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/deucaliondb/deucalion/internal/fault"
	"github.com/deucaliondb/deucalion/storage"
)

// file brings the file remote of the offered snapshot to name, unless it is there already. What is at name has the
// right checksum and is on disk, always.
func (f *fetch) file(ctx context.Context, remote string, x storage.File, name string) error {
	if f.progress.has(name) {
		return nil // by an earlier attempt of this fetch
	}
	if same, err := sameFile(name, x); err != nil {
		return err
	} else if same {
		f.progress.arrived(name, x.Size)
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	err := f.download(ctx, remote, x, name)
	if errors.Is(err, errWrongBytes) {
		f.metrics.catchUpFailures.Inc()
		f.logger.Warn("A fetched file has a wrong checksum, fetching it once more", "file", remote, "source", f.offer.Node)
		err = f.download(ctx, remote, x, name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", remote, err)
	}
	f.progress.arrived(name, x.Size)
	return nil
}

// sameFile tells whether the file at name is x. Another one is removed: it is of another offer, or has rotted.
func sameFile(name string, x storage.File) (bool, error) {
	err := storage.File{Path: filepath.Base(name), Size: x.Size, CRC32C: x.CRC32C}.CheckFile(filepath.Dir(name))
	if err == nil {
		return true, nil
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	return false, nil
}

// download brings the file to name.
func (f *fetch) download(ctx context.Context, remote string, x storage.File, name string) error {
	return remoteFile{
		File: x,
		open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			return f.node.client.openFile(ctx, f.offer.Node, f.offer.Snapshot, remote, offset)
		},
		note: func(n int, have int64) {
			if n == 0 {
				f.progress.part(have)
				return
			}
			f.metrics.catchUpFetched.Add(float64(n))
			f.progress.received(n, have)
			f.logProgress()
			fault.Point(fault.CatchUpFetching)
		},
	}.download(ctx, name)
}
