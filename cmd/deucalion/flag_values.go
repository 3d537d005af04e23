// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/alecthomas/units"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/common/model"
)

const (
	defaultRetention = 15 * 24 * time.Hour
	maxRetention     = 100 * 365 * 24 * time.Hour
)

// retention says when samples may go; 0 means never for that reason.
type retention struct {
	time time.Duration
	size int64 // bytes of blocks
}

func (r retention) String() string {
	var parts []string
	if r.time != 0 {
		parts = append(parts, model.Duration(r.time).String())
	}
	if r.size != 0 {
		parts = append(parts, units.Base2Bytes(r.size).String())
	}
	return strings.Join(parts, " or ")
}

// messageTypes is a cumulative flag of remote-write message names.
type messageTypes struct{ to *remoteapi.MessageTypes }

// IsCumulative tells kingpin that the flag may be repeated.
func (*messageTypes) IsCumulative() bool { return true }

func (m *messageTypes) String() string { return strings.Join(m.to.Strings(), ",") }

// Set adds one message name.
func (m *messageTypes) Set(s string) error {
	t := remoteapi.WriteMessageType(s)
	if err := t.Validate(); err != nil {
		return err
	}
	if slices.Contains(*m.to, t) {
		return fmt.Errorf("duplicated %v flag value, got %v already", t, *m.to)
	}
	*m.to = append(*m.to, t)
	return nil
}

// sampleLimit is an integer that may be written as 5e7, which is how Prometheus writes the default.
type sampleLimit int

func (l *sampleLimit) String() string { return strconv.Itoa(int(*l)) }

// Set parses s.
func (l *sampleLimit) Set(s string) error {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != float64(int(f)) {
		return fmt.Errorf("expected an integer but got %q", s)
	}
	*l = sampleLimit(f)
	return nil
}

// shownFlags lists our flags with their values, without those that kingpin adds to any program.
func shownFlags(app *kingpin.Application) map[string]string {
	boilerplate := kingpin.New("", "").Version("")
	shown := map[string]string{}
	for _, f := range app.Model().Flags {
		if boilerplate.GetFlag(f.Name) == nil {
			shown[f.Name] = f.Value.String()
		}
	}
	return shown
}
