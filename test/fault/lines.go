// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import "fmt"

// lineList is the first lines of a list, and how many there are.
type lineList struct {
	lines []string
	found int
	limit int
}

func (l *lineList) addf(format string, args ...any) {
	if l.found++; l.found <= l.limit {
		l.lines = append(l.lines, fmt.Sprintf(format, args...))
	}
}

// list is nil when there are none. It ends with a count of those that are left out.
func (l *lineList) list() []string {
	if more := l.found - len(l.lines); more > 0 {
		return append(l.lines[:len(l.lines):len(l.lines)], fmt.Sprintf("and %d more", more))
	}
	return l.lines
}
