// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"bytes"
	"fmt"
	"io"
	"net/http"

	"github.com/klauspost/compress/snappy"
)

// keepBuffer is the largest buffer that goes back to the pool. A request of 10,000 samples needs about 1 MiB; one of
// the limit must not pin its memory for good.
const keepBuffer = 4 << 20

// request holds the buffers of one request.
type request struct {
	compressed bytes.Buffer
	decoded    []byte
	held       int64 // bytes counted in Handler.inFlight
	decoder    decoder
}

// reset makes r ready for the pool and returns how many bytes it had counted as in flight.
func (r *request) reset() (held int64) {
	held, r.held = r.held, 0
	r.decoder.release()
	if r.compressed.Cap() > keepBuffer {
		r.compressed = bytes.Buffer{}
	}
	r.compressed.Reset()
	if cap(r.decoded) > keepBuffer {
		r.decoded = nil
	}
	return held
}

// read returns the decoded body of r, in a buffer of req. What the sender declares is checked against the limits
// before anything of that size is allocated.
func (h *Handler) read(req *request, r *http.Request) ([]byte, error) {
	limit := h.cfg.MaxBodyBytes
	if r.ContentLength > int64(limit) {
		return nil, fmt.Errorf("%w: %d bytes exceed the limit of %d", ErrTooLarge, r.ContentLength, limit)
	}
	if r.ContentLength > 0 {
		req.compressed.Grow(int(min(r.ContentLength, keepBuffer/4)) + bytes.MinRead)
	}
	n, err := req.compressed.ReadFrom(io.LimitReader(meter{h, req, r.Body}, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	if n > int64(limit) {
		return nil, fmt.Errorf("%w: request body exceeds the limit of %d bytes", ErrTooLarge, limit)
	}
	size, err := snappy.DecodedLen(req.compressed.Bytes())
	if err != nil {
		return nil, fmt.Errorf("snappy: %w", err)
	}
	if size > limit {
		return nil, fmt.Errorf("%w: decoded size of %d bytes exceeds the limit of %d", ErrTooLarge, size, limit)
	}
	if err := h.take(req, size); err != nil {
		return nil, err
	}
	body, err := snappy.Decode(req.decoded[:cap(req.decoded)], req.compressed.Bytes())
	if err != nil {
		return nil, fmt.Errorf("snappy: %w", err)
	}
	req.decoded = body
	return body, nil
}
