// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package crash_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
)

const (
	victimName    = "crash_victim"
	victimSamples = 20
	victimLives   = 4  // so many victims are written before the oldest is deleted
	cleanEvery    = 15 // victims
)

// victims writes series and deletes them again, wholly or in part, as fast as that is acknowledged. Their newer half
// comes first, so that the older half is out of order.
type victims struct {
	targets []*client.Client
	rng     *rand.Rand
	stop    context.CancelFunc
	done    sync.WaitGroup

	gate sync.Mutex // held over one write or delete with all its retries
	next int
	live []victim
	want client.Data // what must be there
}

type victim struct {
	number int
	start  int64
}

func startVictims(targets []*client.Client, seed uint64) *victims {
	ctx, cancel := context.WithCancel(context.Background())
	v := &victims{targets: targets, rng: rand.New(rand.NewPCG(seed, 1)), stop: cancel, want: client.Data{}}
	v.done.Go(func() {
		for ctx.Err() == nil {
			v.step(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return v
}

// Stop ends the load; an operation under way is broken off.
func (v *victims) Stop() {
	v.stop()
	v.done.Wait()
}

// Pause waits until no operation is under way and keeps it so until Resume.
func (v *victims) Pause() { v.gate.Lock() }

// Resume ends a Pause.
func (v *victims) Resume() { v.gate.Unlock() }

func (v *victims) step(ctx context.Context) {
	v.gate.Lock()
	defer v.gate.Unlock()
	v.write(ctx)
	if len(v.live) > victimLives {
		v.erase(ctx, v.live[0])
		v.live = v.live[1:]
	}
	if v.next%cleanEvery == 0 {
		// Whether all nodes have cleaned up is not this test's question; that they do it is.
		cctx, cancel := context.WithTimeout(ctx, time.Second)
		_ = v.target().Clean(cctx)
		cancel()
	}
}

func (v *victims) target() *client.Client { return v.targets[v.rng.IntN(len(v.targets))] }

// until repeats an operation that may be repeated until it is acknowledged.
func (v *victims) until(ctx context.Context, f func(context.Context, *client.Client) error) {
	for ctx.Err() == nil {
		actx, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := f(actx, v.target())
		cancel()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (v *victims) write(ctx context.Context) {
	x := victim{v.next, time.Now().Add(-10 * time.Minute).UnixMilli()}
	v.next++
	ls := client.Labels("__name__", victimName, "n", fmt.Sprint(x.number))
	var samples []prompb.Sample
	for i := range victimSamples {
		samples = append(samples, prompb.Sample{Timestamp: x.start + int64(i)*1000, Value: float64(x.number*100 + i)})
	}
	for _, half := range [][]prompb.Sample{samples[victimSamples/2:], samples[:victimSamples/2]} {
		v.until(ctx, func(ctx context.Context, c *client.Client) error {
			return c.Write(ctx, []prompb.TimeSeries{{Labels: ls, Samples: half}})
		})
	}
	for _, s := range samples {
		v.want[x.key()] = append(v.want[x.key()], client.Sample{T: s.Timestamp, Bits: math.Float64bits(s.Value)})
	}
	v.live = append(v.live, x)
}

func (x victim) key() string { return fmt.Sprintf(`{__name__=%q,n="%d"}`, victimName, x.number) }

// erase deletes all of a victim or its middle half.
func (v *victims) erase(ctx context.Context, x victim) {
	params := url.Values{"match[]": {fmt.Sprintf(`%s{n="%d"}`, victimName, x.number)}}
	all := v.want[x.key()]
	left := []client.Sample(nil)
	if v.rng.IntN(2) == 0 {
		params.Set("start", client.Seconds(all[5].T))
		params.Set("end", client.Seconds(all[14].T))
		left = append(append(left, all[:5]...), all[15:]...)
	}
	v.until(ctx, func(ctx context.Context, c *client.Client) error { return c.Delete(ctx, params) })
	if left == nil {
		delete(v.want, x.key())
	} else {
		v.want[x.key()] = left
	}
}

// forget deletes all victims; the caller has paused the load.
func (v *victims) forget(ctx context.Context) {
	v.eraseAll(ctx, victimName)
	v.live, v.want = nil, client.Data{}
}

// eraseAll deletes everything that a selector matches.
func (v *victims) eraseAll(ctx context.Context, selector string) {
	v.until(ctx, func(ctx context.Context, c *client.Client) error {
		return c.Delete(ctx, url.Values{"match[]": {selector}})
	})
}

// split divides data into victims and the rest.
func split(data client.Data) (mine, rest client.Data) {
	mine, rest = client.Data{}, client.Data{}
	for key, samples := range data {
		if strings.HasPrefix(key, fmt.Sprintf("{__name__=%q", victimName)) {
			mine[key] = samples
		} else {
			rest[key] = samples
		}
	}
	return mine, rest
}

// TestVictimKey holds the key that victims are booked under against the one that answers have.
func TestVictimKey(t *testing.T) {
	x := victim{number: 7}
	require.Equal(t, client.Key(client.Labels("__name__", victimName, "n", "7")), x.key())
}
