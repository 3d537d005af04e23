// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package fault is the fault suite: it puts a workload on real servers, does one fault after
// the other to them, and judges what clients were told against what the servers hold.
//
// A System is what faults are done to: processes in network namespaces (namespaces.go), the
// containers of deploy/compose (compose.go), or, for comparison, other servers (peers.go). The
// nemesis (nemesis.go and fault_*.go) does the faults. The workload is package ledger, registers
// (load_register.go), and the parts of workload.go: alerts, scrapes, deletes; each judges its own.
// Run (run.go) puts all together, in epochs that end with an audit, and gives a Report.
//
// A run is given by its seed and its time. The seed fixes the faults and their order;
// how they meet the load is up to the machine.
package fault
