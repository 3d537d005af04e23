// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/hashicorp/raft"

	"github.com/deucaliondb/deucalion/fsm"
)

// verifyLog reads the whole log, before Raft does: it must reach the mark of its end, and every entry after the newest
// good snapshot must be what was written. Damage before that costs nothing but the beginning of the log, which is cut
// off: entries there only serve followers that are behind. It returns the term of the last entry.
func verifyLog(s *sumLog, snap uint64, logger *slog.Logger) (lastTerm uint64, err error) {
	first, err := s.FirstIndex()
	if err != nil {
		return 0, err
	}
	last, err := s.LastIndex()
	if err != nil {
		return 0, err
	}
	mark, markTerm := s.end.get()
	if mark > max(last, snap) {
		return 0, &damage{partLog, s.dir, fmt.Errorf("ends at %d, and entry %d was durable", last, mark)}
	}
	var cut uint64
	for i := first; i <= last && last > 0; i++ {
		var l raft.Log
		err := s.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			err = fmt.Errorf("entry %d is missing, the log begins at %d and ends at %d", i, first, last)
		}
		if err == nil && i == mark && l.Term != markTerm {
			err = fmt.Errorf("entry %d is of term %d, one of term %d was durable", i, l.Term, markTerm)
		}
		switch {
		case err == nil:
			lastTerm = l.Term
		case errors.Is(err, fsm.ErrNewer):
			return 0, err // nothing is wrong with it
		case i > snap:
			return 0, &damage{partLog, s.dir, err}
		default:
			logger.Warn("Damage in the part of the Raft log that a snapshot replaces; it is cut off", "log", s.dir, "err", err)
			cut = i
		}
	}
	if cut > 0 {
		return lastTerm, s.DeleteRange(first, cut)
	}
	return lastTerm, nil
}
