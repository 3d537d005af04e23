// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package scrape holds the tests of scraping by real processes: 500 targets on three nodes, of which one is killed, comes
// back, and another one is stopped.
package scrape
