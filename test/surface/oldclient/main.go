// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Command client calls the gRPC admin API with the stubs that Prometheus 2.5 was released with. It is a module of its
// own, because those cannot be in one program with a Prometheus of today. It prints one line a call: the name of the
// snapshot, or the code of the failure.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// main takes an address, the metric to delete, and a regular expression for its label i.
func main() {
	conn, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	admin := prompb.NewAdminClient(conn)

	snapshot, err := admin.TSDBSnapshot(ctx, &prompb.TSDBSnapshotRequest{})
	if err != nil {
		fmt.Println("snapshot", status.Code(err))
	} else {
		fmt.Println("snapshot", snapshot.Name)
	}
	from, to := time.Unix(0, 0), time.Now().Add(time.Hour)
	_, err = admin.DeleteSeries(ctx, &prompb.SeriesDeleteRequest{MinTime: &from, MaxTime: &to, Matchers: []prompb.LabelMatcher{
		{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: os.Args[2]},
		{Type: prompb.LabelMatcher_RE, Name: "i", Value: os.Args[3]},
	}})
	fmt.Println("delete", status.Code(err))
	_, err = admin.DeleteSeries(ctx, &prompb.SeriesDeleteRequest{MinTime: &to, MaxTime: &from, Matchers: []prompb.LabelMatcher{{Name: "a"}}})
	fmt.Println("delete", status.Code(err))
	_, err = admin.TSDBCleanTombstones(ctx, &prompb.TSDBCleanTombstonesRequest{})
	fmt.Println("clean", status.Code(err))
}
