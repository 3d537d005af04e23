// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// markDamage makes an error that comes from a wrong checksum, which TSDB tells by
// text only, an ErrDamaged.
func markDamage(err error) error {
	if err == nil || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "checksum") {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// Scrub has all blocks compared with their checksums at once, in the background.
// Options.OnDamage is told of what is wrong. Does nothing with Options.Manual.
func (s *Store) Scrub() { s.kick(s.kickScrub) }

// scrubOnDemand is scrubLoop without an interval.
func (s *Store) scrubOnDemand() {
	defer s.wg.Done()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.kickScrub:
		}
		start := time.Now()
		err := s.scrub(rate.NewLimiter(rate.Inf, scrubBuffer))
		if s.ctx.Err() != nil {
			return
		}
		s.m.scrubs.Inc()
		s.m.scrubSeconds.Set(time.Since(start).Seconds())
		s.m.damaged.Set(0)
		if err != nil {
			s.m.damaged.Set(1)
			s.opts.Logger.Error("A block on the disk is damaged", "err", err)
			s.opts.OnDamage(err)
		}
	}
}
