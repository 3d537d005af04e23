// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package bench is a load generator for remote write, and the accounts of what the
// load cost: acknowledged samples a second, latency, and the CPU time, memory and disk
// of each server process, read from /proc. Requests are built once, as protobuf, and
// only values and timestamps are patched into them before they are compressed and
// sent, so that the generator takes little of the machine that it shares with the
// servers.
package bench

import (
	"errors"
	"fmt"
	"time"
)

// ErrOptions is wrapped by the error for options that make no sense.
var ErrOptions = errors.New("bad option")

// Options describe a load. Its series have unique label sets; one half of them are counters, the other half
// gauges that walk at random with two decimals; unless Random is set.
type Options struct {
	URLs     []string      // remote-write endpoints; requests go to them in turn
	Protocol int           // 1 or 2: the version of remote write
	Series   int           // number of series
	Labels   int           // labels of each series, the name included; at least 3
	Batch    int           // samples in one request, each of another series
	Senders  int           // requests under way at the same time
	Rate     float64       // samples per second; 0 means as fast as they are acknowledged
	Duration time.Duration // length of the load; 0 means until Rounds is reached
	Rounds   int           // samples of each series after which the load ends; 0 means after Duration
	Interval time.Duration // between the timestamps of one series
	Start    time.Time     // first timestamp; zero means a week ago
	Seed     uint64        // of the values
	Random   bool          // values have nothing to do with each other, so that a sample takes eight bytes on disk
}

// Defaults is the load of the project's own figures.
func Defaults() Options {
	return Options{
		Protocol: 1, Series: 10_000, Labels: 8, Batch: 2000, Senders: 4,
		Duration: 30 * time.Second, Interval: 15 * time.Second, Seed: 1,
	}
}

func (o *Options) check() error {
	switch {
	case len(o.URLs) == 0:
		return fmt.Errorf("%w: no URL", ErrOptions)
	case o.Protocol != 1 && o.Protocol != 2:
		return fmt.Errorf("%w: remote write version %d", ErrOptions, o.Protocol)
	case o.Labels < 3:
		return fmt.Errorf("%w: %d labels, at least 3 are needed", ErrOptions, o.Labels)
	case o.Series < 1 || o.Batch < 1 || o.Senders < 1:
		return fmt.Errorf("%w: series, batch and senders must be positive", ErrOptions)
	case o.Interval < time.Millisecond || o.Duration < 0 || o.Rate < 0 || o.Rounds < 0:
		return fmt.Errorf("%w: negative or too small", ErrOptions)
	case o.Duration == 0 && o.Rounds == 0:
		return fmt.Errorf("%w: neither duration nor rounds", ErrOptions)
	}
	if o.Start.IsZero() {
		o.Start = time.Now().Add(-7 * 24 * time.Hour)
	}
	if start := o.Start.UnixMilli(); start < minTime || start > maxTime {
		return fmt.Errorf("%w: start %s", ErrOptions, o.Start)
	}
	return nil
}
