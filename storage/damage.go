// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"strings"
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
