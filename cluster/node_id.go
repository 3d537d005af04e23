// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// randomHex returns 2n random hex digits.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see its documentation
	return hex.EncodeToString(b)
}

// nodeID returns the id kept in dir, or keeps the given one, or a random one. An id is for ever: Raft counts votes by
// it, so a directory that changes its id would vote twice.
func nodeID(dir, given string) (string, error) {
	if given != "" && !validID.MatchString(given) {
		return "", fmt.Errorf("node id %q: want 1 to 63 of letters, digits, '.', '_', '-'", given)
	}
	name := filepath.Join(dir, "node-id")
	b, err := os.ReadFile(name)
	kept := strings.TrimSpace(string(b))
	switch {
	case err == nil && !validID.MatchString(kept):
		return "", fmt.Errorf("%w: %s holds no node id", ErrDamaged, name)
	case err == nil && given != "" && given != kept:
		return "", fmt.Errorf("data directory belongs to node %q, not to %q; give each node a directory of its own", kept, given)
	case err == nil:
		return kept, nil
	case !errors.Is(err, os.ErrNotExist):
		return "", err
	}
	if given == "" {
		given = randomHex(4)
	}
	return given, writeFileDurably(name, []byte(given+"\n"))
}

// writeFileDurably replaces a small file so that a crash leaves the old or the new one.
func writeFileDurably(name string, b []byte) (err error) {
	f, err := os.OpenFile(name+tmpSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+tmpSuffix, name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}
