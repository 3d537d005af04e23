// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"errors"
	"fmt"

	"github.com/deucaliondb/deucalion/cluster"
)

var (
	// ErrMalformed is returned for a body that is not the protobuf message that it claims to be. The whole request
	// is refused with 400; a retry can only fail again.
	ErrMalformed = errors.New("malformed protobuf")
	// ErrTooLarge is returned for a body above the limit, compressed or decoded: 413.
	ErrTooLarge = errors.New("request body too large")
	// ErrBusy is returned when the requests being decoded already hold as much memory as they may: 503.
	ErrBusy = errors.New("too many bytes of remote write in flight")

	errDisputed = fmt.Errorf("%w, and by one of the clocks a sample is too far in the future: nothing was written; try again, or another node", cluster.ErrClockOff)

	errSymbols = errors.New("symbol references")
)
