// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// MarkWrite makes an error that comes from a write or a sync that the disk has
// failed (EIO) an ErrWrite. One of a read, which is damage, or of a full disk stays
// as it is.
func MarkWrite(err error) error {
	if errors.Is(err, ErrWrite) || !failedWrite(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrWrite, err)
}

func failedWrite(err error) bool {
	switch e := err.(type) {
	case *fs.PathError:
		return errors.Is(e.Err, syscall.EIO) && slices.Contains([]string{"write", "sync", "close"}, e.Op)
	case *os.LinkError, *os.SyscallError:
		return false
	case syscall.Errno: // fdatasync and fallocate give no more
		return e == syscall.EIO
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), failedWrite)
	case interface{ Unwrap() error }:
		return failedWrite(e.Unwrap())
	}
	return false
}

// noteWriteError tells Options.OnWriteError of a write that the disk has failed.
func (s *Store) noteWriteError(err error) error {
	err = MarkWrite(err)
	if errors.Is(err, ErrWrite) {
		s.opts.OnWriteError(err)
	}
	return err
}
