// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package client

import "fmt"

// Diff tells what want has and got lacks, what got has beyond want, and what differs, in at most limit
// lines and a last one that counts the rest. Equal data give nil.
func Diff(want, got Data, limit int) []string {
	d := differ{limit: limit}
	for _, key := range want.Keys() {
		if _, ok := got[key]; !ok {
			d.addf("series missing: %s (%d samples)", key, len(want[key]))
			continue
		}
		d.series(key, want[key], got[key])
	}
	for _, key := range got.Keys() {
		if _, ok := want[key]; !ok {
			d.addf("series too many: %s (%d samples)", key, len(got[key]))
		}
	}
	if more := d.found - len(d.lines); more > 0 {
		d.lines = append(d.lines, fmt.Sprintf("and %d more differences", more))
	}
	return d.lines
}

type differ struct {
	lines []string
	found int
	limit int
}

func (d *differ) addf(format string, args ...any) {
	if d.found++; d.found <= d.limit {
		d.lines = append(d.lines, fmt.Sprintf(format, args...))
	}
}

// series merges two lists that are ordered by time.
func (d *differ) series(key string, want, got []Sample) {
	for len(want) > 0 || len(got) > 0 {
		switch {
		case len(got) == 0 || len(want) > 0 && want[0].T < got[0].T:
			d.addf("sample missing: %s %s", key, want[0])
			want = want[1:]
		case len(want) == 0 || got[0].T < want[0].T:
			d.addf("sample too many: %s %s", key, got[0])
			got = got[1:]
		default:
			if want[0] != got[0] {
				d.addf("sample differs: %s want %s, got %s", key, want[0], got[0])
			}
			want, got = want[1:], got[1:]
		}
	}
}
