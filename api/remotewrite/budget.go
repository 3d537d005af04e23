// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"fmt"
	"io"
)

// What a request costs beside its bytes: a message of two bytes becomes structs here, in the batch and in the entry.
const (
	itemCost       = 128 // bytes of each sample, histogram, exemplar, symbol and series
	histogramTimes = 8   // bytes for each on the wire: a bucket of one byte becomes a number of eight
	exemplarTimes  = 32  // bytes for each on the wire: an empty label is two bytes there
	refCost        = 4   // bytes of a label reference

	creditStep = 8 << 10 // bytes taken at once: all requests share one counter
)

// take counts n more bytes as held by req. They are given back with the request, also after an error.
func (h *Handler) take(req *request, n int) error {
	req.held += int64(n)
	switch {
	case h.inFlight.Add(int64(n)) <= h.cfg.MaxInFlightBytes:
		return nil
	case req.held > h.cfg.MaxInFlightBytes: // would fail for ever
		return fmt.Errorf("%w: it takes more than %d bytes of memory", ErrTooLarge, h.cfg.MaxInFlightBytes)
	}
	return ErrBusy
}

// spend pays for n bytes of memory, before they are allocated.
func (d *decoder) spend(n int) error {
	if d.credit -= n; d.credit >= 0 {
		return nil
	}
	return d.borrow()
}

// borrow is kept out of line so that spend is small enough for the compiler to put it in line.
//
//go:noinline
func (d *decoder) borrow() error {
	n := creditStep - d.credit
	d.credit = creditStep
	if d.take == nil {
		return nil
	}
	return d.take(n)
}

// meter counts a body as in flight while it arrives. What a sender only declares is not counted: it would keep others
// out.
type meter struct {
	h   *Handler
	req *request
	io.Reader
}

func (m meter) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if full := m.h.take(m.req, n); full != nil {
		return n, full
	}
	return n, err
}
