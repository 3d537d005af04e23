// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"errors"

	"github.com/prometheus/prometheus/storage"
)

// Reason says why a sample was refused. The numbers travel over the network.
type Reason uint8

// Reasons, see admit.
const (
	Accepted    Reason = 0
	TooOld      Reason = 1 // below the cutoff, or too far behind the newest sample
	OutOfOrder  Reason = 2 // older than the series' newest, without an out-of-order window
	Duplicate   Reason = 3 // the timestamp has another value
	OutOfBounds Reason = 4 // too far in the future of the receiving node's clock
	Invalid     Reason = 5 // labels or histogram that cannot be stored
)

var errInvalidSample = errors.New("invalid sample")

// String is the value of the metrics label reason.
func (r Reason) String() string {
	switch r {
	case Accepted:
		return "accepted"
	case TooOld:
		return "too_old"
	case OutOfOrder:
		return "out_of_order"
	case Duplicate:
		return "duplicate"
	case OutOfBounds:
		return "out_of_bounds"
	default:
		return "invalid"
	}
}

// Err is what Prometheus's storage would have returned for it.
func (r Reason) Err() error {
	switch r {
	case Accepted:
		return nil
	case TooOld:
		return storage.ErrTooOldSample
	case OutOfOrder:
		return storage.ErrOutOfOrderSample
	case Duplicate:
		return storage.ErrDuplicateSampleForTimestamp
	case OutOfBounds:
		return storage.ErrOutOfBounds
	default:
		return errInvalidSample
	}
}
