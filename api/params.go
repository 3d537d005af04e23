// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// parseDelete reads the parameters of delete_series as Prometheus does.
func (a *API) parseDelete(r *http.Request) (selectors [][]*labels.Matcher, mint, maxt int64, err error) {
	if len(r.Form["match[]"]) == 0 {
		return nil, 0, 0, errors.New("no match[] parameter provided")
	}
	start, err := timeParam(r, "start", v1.MinTime)
	if err != nil {
		return nil, 0, 0, err
	}
	end, err := timeParam(r, "end", v1.MaxTime)
	if err != nil {
		return nil, 0, 0, err
	}
	for _, s := range r.Form["match[]"] {
		matchers, err := a.cfg.Parser.ParseMetricSelector(s)
		if err != nil {
			return nil, 0, 0, fmt.Errorf("invalid parameter %q: %w", "match[]", err)
		}
		if selectsAll(matchers) {
			return nil, 0, 0, errors.New("match[] must contain at least one non-empty matcher")
		}
		selectors = append(selectors, matchers)
	}
	return selectors, timestamp.FromTime(start), timestamp.FromTime(end), nil
}

// selectsAll tells a selector that leaves nothing out, such as {} or {job=~".*"}: it is what a script makes of an empty
// variable. Who means it says {__name__=~".+"}.
func selectsAll(matchers []*labels.Matcher) bool {
	return !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !matchesAll(m) })
}

// matchesAll asks a regular expression about the empty string and a long one of each character.
func matchesAll(m *labels.Matcher) bool {
	if m.Name == "" { // which is no label
		return m.Matches("")
	}
	if m.Type != labels.MatchRegexp || !m.Matches("") {
		return false
	}
	for c := range rune(0x100) {
		if !m.Matches(strings.Repeat(string(c), 1000)) {
			return false
		}
	}
	return true
}

func timeParam(r *http.Request, name string, otherwise time.Time) (time.Time, error) {
	s := r.FormValue(name)
	if s == "" {
		return otherwise, nil
	}
	t, err := parseTime(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("invalid parameter %q: invalid time value for '%s': %w", name, name, err)
	}
	return t, nil
}

// parseTime takes Unix seconds with a fraction, RFC 3339, and the two ends of time as Prometheus writes them, whose
// years have more digits than package time can parse.
func parseTime(s string) (time.Time, error) {
	if sec, err := strconv.ParseFloat(s, 64); err == nil {
		whole, frac := math.Modf(sec)
		return time.Unix(int64(whole), int64(math.Round(frac*1000))*int64(time.Millisecond)).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	switch s {
	case v1.MinTime.Format(time.RFC3339Nano):
		return v1.MinTime, nil
	case v1.MaxTime.Format(time.RFC3339Nano):
		return v1.MaxTime, nil
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}
