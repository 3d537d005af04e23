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

	"github.com/deucaliondb/deucalion/storage"
)

// errWrongBytes: a file came with a wrong checksum. Twice: it is damaged where it comes from.
var errWrongBytes = errors.New("wrong checksum")

// remoteFile is a file of another node.
type remoteFile struct {
	storage.File
	// open reads the file from offset on.
	open func(ctx context.Context, offset int64) (io.ReadCloser, error)
	// note is told that n more bytes have come, and have are here. n is 0 for those of an earlier attempt.
	note func(n int, have int64)
}

// download appends what is missing to <name>.<crc>.part, and renames it when it is whole, right and on disk.
func (r remoteFile) download(ctx context.Context, name string) error {
	part := fmt.Sprintf("%s.%08x%s", name, r.CRC32C, partSuffix)
	out, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	err = r.append(ctx, out, sum)
	if err == nil && sum.Sum32() != r.CRC32C {
		err = fmt.Errorf("%w: %08x, want %08x", errWrongBytes, sum.Sum32(), r.CRC32C)
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
func (r remoteFile) append(ctx context.Context, out *os.File, sum hash.Hash32) error {
	have, err := io.Copy(sum, out)
	if err != nil {
		return err
	}
	if have > r.Size {
		return fmt.Errorf("%w: %d bytes, want %d", errWrongBytes, have, r.Size)
	}
	r.note(0, have)
	if have == r.Size {
		return nil
	}
	in, err := r.open(ctx, have)
	if err != nil {
		return err
	}
	defer in.Close()
	buf := make([]byte, maxChunk)
	for have < r.Size {
		n, err := in.Read(buf[:min(int64(len(buf)), r.Size-have)])
		if n > 0 {
			if _, err := out.Write(buf[:n]); err != nil {
				return err
			}
			_, _ = sum.Write(buf[:n])
			have += int64(n)
			r.note(n, have)
		}
		if err == io.EOF && have < r.Size {
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
