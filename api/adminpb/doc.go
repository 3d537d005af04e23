// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package adminpb holds the messages and the service of the gRPC admin API, made from its .proto files.
package adminpb

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative --go-grpc_out=../.. --go-grpc_opt=paths=source_relative api/adminpb/admin.proto api/adminpb/matcher.proto
