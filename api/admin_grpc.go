// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/deucaliondb/deucalion/api/adminpb"
)

// adminServer is the admin service of Prometheus 2.0 to 2.21. Its calls go the way of the HTTP ones: on all nodes,
// through any.
type adminServer struct {
	adminpb.UnimplementedAdminServer
	api *API
}

// newGRPC makes the server of all gRPC services. It starts no goroutines: it is served through its ServeHTTP.
func (a *API) newGRPC() *grpc.Server {
	s := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
			defer a.recoverCall(info.FullMethod, &err)
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
			defer a.recoverCall(info.FullMethod, &err)
			return next(srv, stream)
		}),
	)
	adminpb.RegisterAdminServer(s, adminServer{api: a})
	reflection.Register(s)
	return s
}

// recoverCall is recoverPanics for gRPC, whose handlers run on goroutines of their own.
func (a *API) recoverCall(method string, err *error) {
	if p := recover(); p != nil {
		a.logger.Error("Panic while serving a call", "method", method, "err", p, "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "internal error")
	}
}

// withGRPC sends the calls of gRPC clients to s and everything else to next. Both share the port, with and without TLS.
func (a *API) withGRPC(s *grpc.Server, next http.Handler) http.Handler {
	calls := a.metrics.instrument("/prometheus.Admin", func(w http.ResponseWriter, r *http.Request) {
		// The read timeout of the server would end a long wait.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		s.ServeHTTP(w, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			calls(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// begin says whether admin calls are served now.
func (s adminServer) begin() error {
	if !s.api.cfg.EnableAdmin {
		return status.Error(codes.Unavailable, "Admin APIs are disabled")
	}
	if err := s.api.gate.check(); err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	return nil
}

// end tells the client the index of the entry, and why the call failed if it did.
func (adminServer) end(ctx context.Context, index uint64, fail *adminFailure) error {
	if index != 0 {
		// Fails only outside of a call, as in the gateway, which has its own header.
		_ = grpc.SetHeader(ctx, metadata.Pairs(headerIndex, strconv.FormatUint(index, 10)))
	}
	if fail != nil {
		return fail.status()
	}
	return nil
}

// TSDBSnapshot makes a snapshot on all nodes. SkipHead has no effect, as with the HTTP call.
func (s adminServer) TSDBSnapshot(ctx context.Context, _ *adminpb.TSDBSnapshotRequest) (*adminpb.TSDBSnapshotResponse, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	name, index, _, fail := s.api.makeSnapshot(ctx)
	if err := s.end(ctx, index, fail); err != nil {
		return nil, err
	}
	return &adminpb.TSDBSnapshotResponse{Name: name}, nil
}

// TSDBCleanTombstones rewrites the blocks that have deleted samples in them, on all nodes.
func (s adminServer) TSDBCleanTombstones(ctx context.Context, _ *adminpb.TSDBCleanTombstonesRequest) (*adminpb.TSDBCleanTombstonesResponse, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	index, fail := s.api.clean(ctx)
	if err := s.end(ctx, index, fail); err != nil {
		return nil, err
	}
	return &adminpb.TSDBCleanTombstonesResponse{}, nil
}

// DeleteSeries deletes what all matchers together select.
func (s adminServer) DeleteSeries(ctx context.Context, r *adminpb.SeriesDeleteRequest) (*adminpb.SeriesDeleteResponse, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	mint, maxt, err := timeRange(r.GetMinTime(), r.GetMaxTime())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	selector, err := selectorOf(r.GetMatchers())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	index, fail := s.api.deleteSelected(ctx, [][]*labels.Matcher{selector}, mint, maxt)
	if err := s.end(ctx, index, fail); err != nil {
		return nil, err
	}
	return &adminpb.SeriesDeleteResponse{}, nil
}

// timeRange is the range in milliseconds; a missing end is open.
func timeRange(from, to *timestamppb.Timestamp) (mint, maxt int64, err error) {
	mint, maxt = timestamp.FromTime(v1.MinTime), timestamp.FromTime(v1.MaxTime)
	for _, end := range []struct {
		at *timestamppb.Timestamp
		to *int64
	}{{from, &mint}, {to, &maxt}} {
		if end.at == nil {
			continue
		}
		if err := end.at.CheckValid(); err != nil {
			return 0, 0, err
		}
		*end.to = end.at.AsTime().UnixMilli()
	}
	if from != nil && to != nil && from.AsTime().After(to.AsTime()) {
		return 0, 0, errors.New("min time must be before max time")
	}
	return mint, maxt, nil
}

// selectorOf refuses a list that would mean everything, as the HTTP call does.
func selectorOf(matchers []*adminpb.LabelMatcher) ([]*labels.Matcher, error) {
	if len(matchers) == 0 {
		return nil, errors.New("no matchers provided")
	}
	types := map[adminpb.LabelMatcher_Type]labels.MatchType{
		adminpb.LabelMatcher_EQ: labels.MatchEqual, adminpb.LabelMatcher_NEQ: labels.MatchNotEqual,
		adminpb.LabelMatcher_RE: labels.MatchRegexp, adminpb.LabelMatcher_NRE: labels.MatchNotRegexp,
	}
	var out []*labels.Matcher
	for _, m := range matchers {
		typ, known := types[m.GetType()]
		if !known {
			return nil, errors.New("unknown matcher type")
		}
		if m.GetName() == "" { // a client that has lost what it meant would delete more than that
			return nil, errors.New("matcher without a name")
		}
		matcher, err := labels.NewMatcher(typ, m.GetName(), m.GetValue())
		if err != nil {
			return nil, fmt.Errorf("bad regexp matcher: %w", err)
		}
		out = append(out, matcher)
	}
	if selectsAll(out) {
		return nil, errors.New("at least one matcher must leave something out")
	}
	return out, nil
}
