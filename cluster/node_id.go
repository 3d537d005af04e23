// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
)

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// randomHex returns 2n random hex digits.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see its documentation
	return hex.EncodeToString(b)
}

const nodeIDFile = "node-id"

// nodeID returns the id kept in dir, or keeps the given one, or a random one. An id is for ever: Raft counts votes by
// it, so a directory that changes its id would vote twice.
func nodeID(dir, given string, logger *slog.Logger) (string, error) {
	if given != "" && !validID.MatchString(given) {
		return "", fmt.Errorf("node id %q: want 1 to 63 of letters, digits, '.', '_', '-'", given)
	}
	name := filepath.Join(dir, nodeIDFile)
	b, err := readSummed(name)
	kept := string(b)
	if err == nil && !validID.MatchString(kept) {
		err = errSum
	}
	switch {
	case errors.Is(err, errSum) && given == "":
		return "", fmt.Errorf("%w: %s: %w; give the id of this node, as the others know it, with --node.id", ErrDamaged, name, errSum)
	case errors.Is(err, errSum):
		logger.Warn("The file with the node id is damaged and is written anew", "file", name, "id", given)
		return given, writeSummed(name, []byte(given))
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
	return given, writeSummed(name, []byte(given))
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
