// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

var (
	// errGone: the source does not have the snapshot, the import or the file any more.
	errGone = errors.New("not there any more")
	// errStalled: no byte came for stallTimeout.
	errStalled = errors.New("no byte for " + stallTimeout.String())
)

// bulkBuffer is what may be under way in one transfer.
const bulkBuffer = 1 << 20

// newBulkTransport makes connections of their own: in one with the other calls, proposals and read indexes would
// queue behind a snapshot.
func newBulkTransport(dial dialFunc) *http.Transport {
	t := newRPCTransport(dial)
	t.HTTP2.MaxReceiveBufferPerStream = bulkBuffer
	t.HTTP2.MaxReceiveBufferPerConnection = bulkBuffer
	return t
}

// openFile asks node id for a file of its snapshot from offset on. See openBulk.
func (c *rpcClient) openFile(ctx context.Context, id, snapshot, path string, offset int64) (io.ReadCloser, error) {
	return c.openBulk(ctx, id, rpcSnapshotFile, url.Values{"id": {snapshot}, "path": {path}, "offset": {strconv.FormatInt(offset, 10)}})
}

// openBulk asks node id for the answer of a call that streams. The reader fails with errStalled; ctx ends it.
func (c *rpcClient) openBulk(ctx context.Context, id, call string, q url.Values) (io.ReadCloser, error) {
	addr := c.node.book.lookup(id)
	if addr == "" {
		return nil, fmt.Errorf("no address of node %s", id)
	}
	b := &bulkBody{}
	ctx, cancel := context.WithCancelCause(ctx)
	b.ctx, b.cancel = ctx, cancel
	b.timer = time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+rpcPrefix+call+"?"+q.Encode(), http.NoBody)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	c.sign(req, id)
	resp, err := c.bulk.RoundTrip(req)
	if err != nil {
		return nil, errors.Join(b.cause(err), b.Close())
	}
	b.body = resp.Body
	if resp.StatusCode == http.StatusOK {
		return b, nil
	}
	text, _ := io.ReadAll(io.LimitReader(b, 4<<10))
	err = fmt.Errorf("node %s: %s: %s", id, resp.Status, strings.TrimSpace(string(text)))
	if resp.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("%w: %w", errGone, err)
	}
	return nil, errors.Join(err, b.Close())
}

// bulkBody is a body with a deadline for each byte.
type bulkBody struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	body   io.ReadCloser
}

// Read implements io.Reader.
func (b *bulkBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if n > 0 {
		b.timer.Reset(stallTimeout)
	}
	if err != nil && err != io.EOF {
		err = b.cause(err)
	}
	return n, err
}

// cause prefers the reason of the cancellation to "context canceled".
func (b *bulkBody) cause(err error) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	return err
}

// Close implements io.Closer.
func (b *bulkBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}
