// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/deucaliondb/deucalion/internal/fault"
	"github.com/deucaliondb/deucalion/storage"
)

// errWrongBytes: a file came twice with a wrong checksum. It is damaged where it comes from.
var errWrongBytes = errors.New("wrong checksum")

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

// download appends what is missing to <name>.<crc>.part, and renames it when it is whole and right.
func (f *fetch) download(ctx context.Context, remote string, x storage.File, name string) (err error) {
	part := fmt.Sprintf("%s.%08x%s", name, x.CRC32C, partSuffix)
	out, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	err = f.append(ctx, out, sum, remote, x)
	if err == nil && sum.Sum32() != x.CRC32C {
		err = fmt.Errorf("%w: %08x, want %08x", errWrongBytes, sum.Sum32(), x.CRC32C)
	}
	if err == nil {
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	switch {
	case errors.Is(err, errWrongBytes):
		return errors.Join(err, os.Remove(part))
	case err != nil:
		return err
	}
	return os.Rename(part, name)
}

// append brings out to its full size and adds all of it to sum.
func (f *fetch) append(ctx context.Context, out *os.File, sum hash.Hash32, remote string, x storage.File) error {
	have, err := io.Copy(sum, out)
	if err != nil {
		return err
	}
	if have > x.Size {
		return fmt.Errorf("%w: %d bytes, want %d", errWrongBytes, have, x.Size)
	}
	f.progress.part(have)
	if have == x.Size {
		return nil
	}
	in, err := f.node.client.openFile(ctx, f.offer.Node, f.offer.Snapshot, remote, have)
	if err != nil {
		return err
	}
	defer in.Close()
	buf := make([]byte, maxChunk)
	for have < x.Size {
		n, err := in.Read(buf[:min(int64(len(buf)), x.Size-have)])
		if n > 0 {
			if _, err := out.Write(buf[:n]); err != nil {
				return err
			}
			_, _ = sum.Write(buf[:n])
			have += int64(n)
			f.metrics.catchUpFetched.Add(float64(n))
			f.progress.received(n, have)
			f.logProgress()
			fault.Point(fault.CatchUpFetching)
		}
		if err == io.EOF && have < x.Size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	// Up to the end, so that the source takes the transfer for a complete one. The checksum is what counts here.
	_, _ = in.Read(buf[:1])
	return nil
}
