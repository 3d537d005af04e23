// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package fault is the fault suite: it puts a workload on real servers, does one fault after
// the other to them, and judges what clients were told against what the servers hold.
//
// A System is what faults are done to: processes in network namespaces (namespaces.go), or
// the containers of deploy/compose. The nemesis (nemesis.go and fault_*.go) does the faults, the
// workload (load.go and load_*.go) writes, reads, deletes, is scraped and gets alerts; each of
// its parts judges its own. A Run puts all together and ends with a Report.
//
// A run is given by its seed and its time. The seed fixes the faults and their order;
// how they meet the load is up to the machine.
package fault
