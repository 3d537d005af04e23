// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

const (
	// scrubDelay is when the first pass begins. What a start does not verify, the
	// chunk segments, should not wait for a whole interval.
	scrubDelay  = time.Minute
	scrubRate   = 32 << 20 // bytes per second, far below what a disk gives
	scrubBuffer = 1 << 20
)

// scrubLoop compares all blocks with their checksums, again and again unless
// Options.ScrubInterval is 0, and at once when damage has been met.
func (s *Store) scrubLoop() {
	defer s.wg.Done()
	wait := min(scrubDelay, s.opts.ScrubInterval)
	for {
		var due <-chan time.Time
		if wait > 0 {
			due = time.After(wait)
		}
		limit := rate.Limit(scrubRate)
		select {
		case <-s.ctx.Done():
			return
		case <-s.kickScrub:
			limit = rate.Inf
		case <-due:
		}
		start := time.Now()
		err := s.scrub(rate.NewLimiter(limit, scrubBuffer))
		if s.ctx.Err() != nil {
			return
		}
		s.m.scrubs.Inc()
		s.m.scrubSeconds.Set(time.Since(start).Seconds())
		s.m.damaged.Set(0) // retention may have removed what was damaged
		if err != nil {
			s.m.damaged.Set(1)
			s.opts.Logger.Error("A block on the disk is damaged", "err", err)
			s.opts.OnDamage(err)
		}
		wait = s.opts.ScrubInterval
	}
}

// scrub reads all blocks that are installed when it begins. The error wraps
// ErrDamaged and names all files that are not what they were.
func (s *Store) scrub(l *rate.Limiter) error {
	s.mu.RLock()
	bs := slices.Clone(s.blocks)
	for _, b := range bs {
		b.pin()
	}
	s.mu.RUnlock()
	var errs []error
	for _, b := range bs {
		if s.ctx.Err() == nil {
			errs = append(errs, s.scrubBlock(b, l))
		}
		s.unpin(b)
	}
	return errors.Join(errs...)
}

func (s *Store) scrubBlock(b *block, l *rate.Limiter) error {
	s.mu.RLock() // against a delete half-way
	err := b.listed().checkMutable(b.Dir())
	s.mu.RUnlock()
	if err != nil {
		return err
	}
	for _, x := range b.files.Files {
		name := filepath.Join(b.Dir(), filepath.FromSlash(x.Path))
		n, crc, err := sumPaced(s.ctx, name, l)
		switch {
		case s.ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		case n != x.Size || crc != x.CRC32C:
			return fmt.Errorf("%w: %s has %d bytes and CRC-32C %08x, it was written with %d and %08x", ErrDamaged, name, n, crc, x.Size, x.CRC32C)
		}
	}
	return nil
}

func sumPaced(ctx context.Context, name string, l *rate.Limiter) (size int64, crc uint32, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	buf := make([]byte, scrubBuffer)
	for {
		n, err := f.Read(buf)
		crc = crc32.Update(crc, castagnoli, buf[:n])
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return size, crc, nil
		}
		if err == nil {
			err = l.WaitN(ctx, n)
		}
		if err != nil {
			return size, crc, err
		}
	}
}

// noteReadError starts a scrub when a read has found damage, which TSDB tells by
// text only: the client gets the error, and the node finds out where it is.
func (s *Store) noteReadError(err error) error {
	if err != nil && strings.Contains(err.Error(), "checksum") {
		s.kick(s.kickScrub)
	}
	return err
}
