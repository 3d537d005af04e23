// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/fault"
	"github.com/deucaliondb/deucalion/test/harness"
)

// lagging plays a server whose bounded reads are answered from a state of some time ago.
type lagging struct {
	lag time.Duration

	mu     sync.Mutex
	states map[string][]state // by register
}

// state is what a register holds from a time on.
type state struct {
	at    time.Time
	value float64
}

func (s *lagging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path != "/api/v1/write" {
		at := time.Now()
		if r.Header.Get("X-Deucalion-Consistency") == "" {
			at = at.Add(-s.lag)
		}
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[%s]}}`, s.result(r.FormValue("query"), at))
		return
	}
	if err := s.write(r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func (s *lagging) write(body io.Reader) error {
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if text, err = snappy.Decode(nil, text); err != nil {
		return err
	}
	var request prompb.WriteRequest
	if err := request.Unmarshal(text); err != nil {
		return err
	}
	for _, series := range request.Timeseries {
		n, value := series.Labels[1].Value, series.Samples[0].Value
		if all := s.states[n]; len(all) > 0 {
			value = max(value, all[len(all)-1].value)
		}
		s.states[n] = append(s.states[n], state{time.Now(), value})
	}
	return nil
}

var registerNumber = regexp.MustCompile(`n="(\d+)"`)

func (s *lagging) result(query string, at time.Time) string {
	found := ""
	for _, one := range s.states[registerNumber.FindStringSubmatch(query)[1]] {
		if !one.at.After(at) {
			found = fmt.Sprintf(`{"metric":{},"value":[1,"%v"]}`, one.value)
		}
	}
	return found
}

// A bounded read may be as old as the nodes are told, and not older.
func TestBoundedReads(t *testing.T) {
	for _, tc := range []struct {
		lag time.Duration
		red bool
	}{{time.Second, false}, {5 * time.Second, true}} {
		t.Run(tc.lag.String(), func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(&lagging{lag: tc.lag, states: map[string][]state{}})
			defer srv.Close()
			var gaps fault.Gaps
			r := fault.StartRegisters(&fault.System{Nodes: []*fault.Node{{URL: srv.URL}}}, "test", 1, &gaps)
			begin := time.Now()
			harness.Await(t, time.Minute, "reads", func(context.Context) error {
				if r.Counts().Bounded < 100 || time.Since(begin) < 4*time.Second {
					return errors.New("too few")
				}
				return nil
			})
			r.Stop()
			found := strings.Join(r.Judge(), "\n")
			require.Equal(t, tc.red, strings.Contains(found, "a bounded read gave"), found)
			require.Equal(t, tc.red, found != "", found)
		})
	}
}
