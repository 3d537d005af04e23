// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fsm

import "fmt"

// Level is the newest level of the log format that this binary knows. A level is
// raised whenever the log may hold something that older binaries cannot read: a
// new kind of entry, or a new meaning of an old one. What a cluster may use is
// Settings.MinVersion, which its leader raises once every member knows it.
const Level = 4

// kindLevels tells at which level each kind appeared. A kind that is not in it is
// unknown.
var kindLevels = [...]uint32{
	kindAppend:       1,
	kindDelete:       1,
	kindClean:        1,
	kindCutoff:       1,
	kindUserSnapshot: 1,
	kindNoop:         1,
	kindSettings:     1,
	kindDigest:       2,
	kindShipped:      3,
	kindImport:       4,
}

// level is 0 for an unknown kind.
func (k kind) level() uint32 {
	if int(k) >= len(kindLevels) {
		return 0
	}
	return kindLevels[k]
}

// EntryLevel is the level that a node must know to apply an encoded entry.
func EntryLevel(entry []byte) uint32 {
	if len(entry) < entryHead {
		return 0
	}
	return kind(entry[1]).level()
}

// Level is the newest level that this state machine knows.
func (f *FSM) Level() uint32 {
	if f.opts.Level != 0 {
		return f.opts.Level
	}
	return Level
}

// checkKind refuses a kind that came after this state machine's level.
func (f *FSM) checkKind(k kind) error {
	if l := k.level(); l == 0 || l > f.Level() {
		return fmt.Errorf("%w, %w: kind %d; this node must be upgraded", ErrFormat, ErrNewer, k)
	}
	return nil
}

// checkLevel refuses settings of a cluster that has gone beyond this binary.
func (f *FSM) checkLevel(s Settings) error {
	if s.MinVersion > f.Level() {
		return fmt.Errorf("%w: the cluster needs version level %d, this binary knows %d: upgrade", ErrNewer, s.MinVersion, f.Level())
	}
	return nil
}
