// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	retryMin = time.Second
	retryMax = time.Minute
)

// work does one after the other until there is nothing left to do, and again at
// each kick. What failed is tried again, but not what the disk itself has
// failed (ErrWrite).
func (s *Store) work(name string, one func() (bool, error), kick <-chan struct{}, failures prometheus.Counter) {
	defer s.wg.Done()
	wait := retryMin
	for s.ctx.Err() == nil {
		worked, err := one()
		switch {
		case errors.Is(err, ErrWrite):
			failures.Inc()
			s.opts.Logger.Error(name+"; no other will be tried", "err", err)
			return
		case err != nil && s.ctx.Err() == nil:
			failures.Inc()
			s.opts.Logger.Error(name+"; will try again", "in", wait, "err", err)
			if !s.pause(wait) {
				return
			}
			wait = min(2*wait, retryMax)
			continue
		case worked:
			wait = retryMin
			continue
		}
		select {
		case <-kick:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Store) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}
