// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

const (
	offerVersion = 1
	// maxOffer bounds what a follower holds in memory for an offer; a manifest has some hundred bytes a block.
	maxOffer = 64 << 20
	// partSuffix ends the names of files that have not arrived completely.
	partSuffix = ".part"
)

// errBadOffer is what every refusal of an offer wraps.
var errBadOffer = errors.New("bad snapshot offer")

// offer is all that Raft's InstallSnapshot carries: which snapshot the leader has, and what is in it. A follower
// fetches what it lacks over RPC (catchup.go). On the wire: one line of JSON, the content of the FSM's manifest, one
// line with the CRC-32C of both. Raft wants to know its size before it is made, hence offerSize.
type offer struct {
	Version  uint32 `json:"version"`
	Node     string `json:"node"`     // which has the files
	Snapshot string `json:"snapshot"` // id in that node's store
	Index    uint64 `json:"index"`    // Raft's
	Term     uint64 `json:"term"`
	Size     int64  `json:"manifest_bytes"`

	manifest fsm.Manifest
	raw      []byte
}

func offerHead(node string, m *snapshotMeta) []byte {
	b, err := json.Marshal(offer{
		Version: offerVersion, Node: node, Snapshot: m.Raft.ID, Index: m.Raft.Index, Term: m.Raft.Term, Size: m.manifest,
	})
	if err != nil {
		panic(err) // strings and numbers
	}
	return append(b, '\n')
}

// offerSize is the exact length of what encodeOffer makes.
func offerSize(node string, m *snapshotMeta) int64 {
	return int64(len(offerHead(node, m))) + m.manifest + sumLength
}

func encodeOffer(node string, m *snapshotMeta, manifest []byte) ([]byte, error) {
	if int64(len(manifest)) != m.manifest {
		return nil, fmt.Errorf("snapshot %s: the manifest has %d bytes, it had %d", m.Raft.ID, len(manifest), m.manifest)
	}
	b := append(offerHead(node, m), manifest...)
	return appendSum(b, b), nil
}

// parseOffer checks everything in an offer that can be checked without its files. Names in it become names on this
// node's disk, so none may lead elsewhere.
func parseOffer(b []byte) (*offer, error) {
	body, ok := bytes.CutSuffix(b, appendSum(nil, b[:max(0, len(b)-sumLength)]))
	if !ok {
		return nil, fmt.Errorf("%w: wrong checksum", errBadOffer)
	}
	head, manifest, _ := bytes.Cut(body, []byte("\n"))
	o := &offer{raw: b}
	if err := json.Unmarshal(head, o); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadOffer, err)
	}
	var err error
	switch {
	case o.Version != offerVersion:
		return nil, fmt.Errorf("%w: version %d, this node knows %d", errBadOffer, o.Version, offerVersion)
	case int64(len(manifest)) != o.Size:
		return nil, fmt.Errorf("%w: manifest of %d bytes, want %d", errBadOffer, len(manifest), o.Size)
	case !validID.MatchString(o.Node):
		return nil, fmt.Errorf("%w: node %q", errBadOffer, o.Node)
	}
	id, ok := parseSnapshotID(o.Snapshot)
	if !ok || id.term != o.Term || id.index != o.Index {
		return nil, fmt.Errorf("%w: snapshot %q of index %d, term %d", errBadOffer, o.Snapshot, o.Index, o.Term)
	}
	if o.manifest, err = fsm.ParseManifest(manifest); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadOffer, err)
	}
	if err := checkManifest(o.manifest); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadOffer, err)
	}
	return o, nil
}

// same tells whether p offers the same files under the same name.
func (o *offer) same(p *offer) bool { return p != nil && bytes.Equal(o.raw, p.raw) }

// checkManifest refuses names that are not plain ones below the snapshot's directory, and what is there twice.
func checkManifest(m fsm.Manifest) error {
	seen := make(map[string]struct{})
	check := func(rel string, f storage.File) error {
		if _, twice := seen[rel]; twice || f.Size < 0 || !fs.ValidPath(f.Path) || f.Path == "." || strings.HasSuffix(f.Path, partSuffix) {
			return fmt.Errorf("file %q of %d bytes", rel, f.Size)
		}
		seen[rel] = struct{}{}
		return nil
	}
	if err := check(m.State.Path, m.State); err != nil {
		return err
	}
	if strings.Contains(m.State.Path, "/") || m.State.Path == fsm.ManifestName || m.State.Path == blocksName {
		return fmt.Errorf("state file %q", m.State.Path)
	}
	for _, b := range m.Blocks {
		for _, f := range b.Files {
			if err := check(remotePath(b, f), f); err != nil {
				return err
			}
		}
	}
	return nil
}

// blocksName is the directory of the blocks in a snapshot's directory.
const blocksName = "blocks"

// remotePath names a block's file below a snapshot's directory.
func remotePath(b storage.BlockFiles, f storage.File) string {
	return path.Join(blocksName, b.ULID.String(), f.Path)
}

// snapshotID is what the name of a snapshot says.
type snapshotID struct {
	term, index uint64
	msec        int64
}

func (id snapshotID) String() string { return fmt.Sprintf("%d-%d-%d", id.term, id.index, id.msec) }

func parseSnapshotID(s string) (id snapshotID, ok bool) {
	_, err := fmt.Sscanf(s, "%d-%d-%d", &id.term, &id.index, &id.msec)
	return id, err == nil && id.String() == s
}

// snapshotReader is what SnapshotStore.Open returns. The FSM takes the files in dir by hard link; a follower that
// is too far behind reads the offer.
type snapshotReader struct {
	store *SnapshotStore
	meta  *snapshotMeta
	dir   string
	offer *bytes.Reader // made by the first Read
	unpin func() error
}

// Read implements io.Reader.
func (r *snapshotReader) Read(p []byte) (int, error) {
	if r.offer == nil {
		b, err := r.store.offer(r.meta)
		if err != nil {
			return 0, err
		}
		r.offer = bytes.NewReader(b)
	}
	return r.offer.Read(p)
}

// Close unpins the snapshot. It may be called again.
func (r *snapshotReader) Close() error { return r.unpin() }
