// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package remotewrite receives Prometheus remote write, versions 1 and 2, and commits it through Raft.
//
// It decodes a request once, straight into an fsm.Batch. The stock receiver builds a label set for each series of
// each request, which costs some twenty times what the append costs. Here the bytes of the label fields, as they
// stand on the wire, are a key: a series that this node has seen before is found by that key alone, and labels are
// parsed, checked and built only for a key that is new. Version 2 writes the same bytes from its symbol table, so
// that both versions share one cache.
//
// Three promises shape the code:
//
//   - Nothing is committed from a request that does not decode. The batch is proposed after the last byte was read.
//   - One bad series or sample never takes the rest of its request with it. It is refused (400, with the reason and
//     counts), everything else is committed. Stock Prometheus rolls a whole version 1 request back instead.
//   - 2xx is answered only for what is committed, all of it. Stock Prometheus answers 204 to a version 1 request whose
//     series have invalid labels, which it drops; here that is a 400.
//
// Start timestamps of version 2 are checked for form and otherwise ignored: the storage has no place for them yet.
package remotewrite
