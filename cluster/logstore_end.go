// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	endFile  = "log-end"
	endBytes = 8 + 8 + 4
	endEvery = time.Second
)

// endMark notes beside the log where it ends. A log store that finds its tail damaged takes it for a write that a crash
// interrupted, and cuts it off without a word; entries which this node has acknowledged would be gone.
//
// The mark is written without a sync and at most once a second, only after the entry that it names is durable: what a
// power failure leaves of it is an older mark, which says less and nothing wrong. Only lowering it is synced.
type endMark struct {
	file   *os.File
	logger *slog.Logger
	stop   chan struct{}
	done   chan struct{}
	once   sync.Once

	mu          sync.Mutex // protects the following, and the file
	index, term uint64     // of the newest durable entry
	dirty       bool       // the file says something older
	broken      bool       // the last write failed
}

// openEnd opens or makes the mark of a log. One that is torn is ignored.
func openEnd(path string, logger *slog.Logger) (*endMark, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	m := &endMark{file: f, logger: logger, stop: make(chan struct{}), done: make(chan struct{})}
	var b [endBytes]byte
	_, err = io.ReadFull(f, b[:])
	switch {
	case errors.Is(err, io.EOF):
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.Join(err, f.Close())
	case err != nil || binary.BigEndian.Uint32(b[16:]) != crc32.Checksum(b[:16], castagnoli):
		logger.Warn("The mark of the log's end cannot be read and is ignored", "file", path)
	default:
		m.index, m.term = binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])
	}
	go m.run()
	return m, nil
}

// run writes the mark of a burst that has ended. It has a goroutine of its own, for even a write into the page cache may
// hang with the disk.
func (m *endMark) run() {
	defer close(m.done)
	t := time.NewTicker(endEvery)
	defer t.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-t.C:
			m.flush()
		}
	}
}

func (m *endMark) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirty {
		return
	}
	err := m.writeLocked()
	if err != nil && !m.broken {
		m.logger.Warn("Cannot note where the Raft log ends, trying again", "err", err)
	}
	m.broken = err != nil
}

func (m *endMark) writeLocked() error {
	var b [endBytes]byte
	binary.BigEndian.PutUint64(b[:], m.index)
	binary.BigEndian.PutUint64(b[8:], m.term)
	binary.BigEndian.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
	_, err := m.file.WriteAt(b[:], 0)
	m.dirty = err != nil
	return err
}

// get returns the newest mark; 0 when there is none.
func (m *endMark) get() (index, term uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index, m.term
}

// advance takes note of a durable entry.
func (m *endMark) advance(index, term uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index, m.term, m.dirty = index, term, true
}

// lower moves the mark back, durably.
func (m *endMark) lower(index, term uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index, m.term = index, term
	if err := m.writeLocked(); err != nil {
		return fmt.Errorf("lower the mark of the log's end: %w", err)
	}
	return m.file.Sync()
}

// Close writes the newest mark.
func (m *endMark) Close() error {
	var err error
	m.once.Do(func() {
		close(m.stop)
		<-m.done
		m.flush()
		err = m.file.Close()
	})
	return err
}
