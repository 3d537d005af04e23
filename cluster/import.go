// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

// An import brings whole blocks into the state. Their files travel beside the log: the node that is given them checks
// them, the other members fetch them from it (import_fetch.go), and when enough have them on disk, one entry that
// lists the files makes all members install them, at one index. A member that has not got them by then, because it was
// down or replays its log, fetches them from any other before it goes on; so each keeps the files for as long as its
// log may hold the entry (import_ensure.go). They cost no room meanwhile, for the installed blocks are links to them.
//
//	<Dir>/imports/<id>/<ULID>/...   the blocks
//	<Dir>/imports/<id>/list         all files are here and on disk: the import as JSON
//	<Dir>/imports/<id>/index        index of the entry, once it is being applied
//	<Dir>/imports/<id>.upload/      what comes in; removed at the next start
const (
	importsName  = "imports"
	importList   = "list"
	importIndex  = "index"
	uploadSuffix = ".upload"
)

var (
	// ErrImportBusy: this node takes one import at a time.
	ErrImportBusy = errors.New("another import is under way on this node")
	// ErrImportRefused: what was sent cannot be imported.
	ErrImportRefused = errors.New("import refused")
)

// ImportReport tells what an import did.
type ImportReport struct {
	Index   uint64          `json:"index"` // log index at which it became visible
	Blocks  []ImportedBlock `json:"blocks"`
	Samples uint64          `json:"samples"` // in all blocks
	// Duplicates of them had no effect: there was a sample of that series at that time.
	Duplicates int64 `json:"duplicates"`
	// Warnings tell what of the blocks was left out.
	Warnings []string `json:"warnings,omitempty"`
}

// ImportedBlock is one of the blocks, as this cluster names it.
type ImportedBlock struct {
	ULID    string `json:"ulid"`
	MinTime int64  `json:"min_time"`
	MaxTime int64  `json:"max_time"` // exclusive
	Series  uint64 `json:"series"`
	Samples uint64 `json:"samples"`
}

// imports looks after the files of imports on this node. It implements fsm.ImportFiles.
type imports struct {
	node    *Node
	dir     string
	logger  *slog.Logger
	metrics *metrics
	taking  sync.Mutex // held by the import that this node was given

	mu      sync.Mutex              // protects the following
	own     string                  // the import that this node was given
	fetches map[string]*importFetch // by import id
	used    map[string]time.Time    // when an import's directory was last asked for, or first seen
	served  map[string]*importServed
}

func newImports(n *Node) (*imports, error) {
	m := &imports{
		node: n, dir: filepath.Join(n.cfg.Dir, importsName), logger: n.logger, metrics: n.metrics,
		fetches: make(map[string]*importFetch), used: make(map[string]time.Time), served: make(map[string]*importServed),
	}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(m.dir, "*"+uploadSuffix))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return m, err
}

func (m *imports) path(id string) string { return filepath.Join(m.dir, id) }

// touch keeps an import from being tidied away.
func (m *imports) touch(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used[id] = time.Now()
}

func (m *imports) setOwn(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own = id
}

// Import takes the blocks in a tar, makes sure that all live members have them, and adds their samples at one log
// index; where there is a sample already, that one stays. It works on any node and returns when all live members answer
// with them. Errors: ErrImportRefused, ErrImportBusy, ErrLevel, ErrDiskFull, ErrClockOff, those of Propose; and after the entry was
// committed those of AwaitAll, with the report.
func (n *Node) Import(ctx context.Context, tarball io.Reader) (*ImportReport, error) {
	if err := n.levelReached(fsm.EncodeImport(fsm.Import{})); err != nil {
		return nil, err
	}
	m := n.imports
	if !m.taking.TryLock() {
		return nil, ErrImportBusy
	}
	defer m.taking.Unlock()
	x := fsm.Import{ID: randomHex(8)}
	m.setOwn(x.ID)
	defer m.setOwn("")
	report, err := m.take(ctx, &x, tarball)
	if err == nil {
		err = m.spread(ctx, x)
	}
	if err != nil {
		m.drop(x.ID)
		return nil, err
	}
	m.lookAhead(ctx, x)
	pctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	res, err := n.Propose(pctx, fsm.EncodeImport(x))
	if err != nil {
		return nil, err // it may be in the log, so the files stay
	}
	if res.Err != "" {
		return nil, errors.New(res.Err)
	}
	report.Index = res.Index
	_, err = n.AwaitAll(ctx, res.Index, "") // a node that is away does not go on without the blocks
	if st, ok := n.fsm.ImportOutcome(x.ID); ok {
		report.Duplicates = st.Refused
	}
	return report, err
}

// drop removes the files of an import that is not in the log.
func (m *imports) drop(id string) {
	if err := os.RemoveAll(m.path(id)); err != nil {
		m.logger.Error("Cannot remove the files of an import", "id", id, "err", err)
	}
}

// finish says that all files of x are in its directory, and syncs their names.
func (m *imports) finish(x fsm.Import) error {
	if err := storage.SyncTree(m.path(x.ID)); err != nil {
		return err
	}
	b, err := json.Marshal(x)
	if err != nil {
		return err
	}
	if err := writeFileDurably(filepath.Join(m.path(x.ID), importList), b); err != nil {
		return err
	}
	return syncDir(m.dir)
}

// list returns the import whose files are all here.
func (m *imports) list(id string) (x fsm.Import, err error) {
	b, err := os.ReadFile(filepath.Join(m.path(id), importList))
	if err != nil {
		return x, err
	}
	if err := json.Unmarshal(b, &x); err != nil {
		return x, fmt.Errorf("import %s: %w", id, err)
	}
	return x, nil
}

// here tells whether all files of x are here, as far as they are checked at a restart too: see storage.BlockFiles.Check.
func (m *imports) here(x fsm.Import) bool {
	if _, err := m.list(x.ID); err != nil {
		return false
	}
	for _, b := range x.Blocks {
		if err := b.Check(m.path(x.ID), false, nil); err != nil {
			m.logger.Error("A file of an import is damaged, fetching it again", "id", x.ID, "err", err)
			return false
		}
	}
	return true
}
