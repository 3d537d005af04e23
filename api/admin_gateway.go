// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/util/httputil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/deucaliondb/deucalion/api/adminpb"
)

// maxGatewayBody bounds the JSON of a delete, which is a list of matchers.
const maxGatewayBody = 1 << 20

// gatewayRoutes serves the gRPC admin service as JSON over HTTP, as the grpc-gateway of Prometheus 2.0 to 2.21 did.
func (a *API) gatewayRoutes(mux *http.ServeMux, prefix string) {
	const path = "/api/v2/admin/tsdb/"
	s := adminServer{api: a}
	handle := func(name string, call func(ctx context.Context, r *http.Request, body []byte) (proto.Message, error)) {
		mux.Handle("POST "+prefix+path+name, a.metrics.instrument(path+name, a.gate.wrapFunc(a.gateway(call))))
	}
	handle("snapshot", func(ctx context.Context, r *http.Request, body []byte) (proto.Message, error) {
		req := &adminpb.TSDBSnapshotRequest{}
		if err := fromJSON(body, req); err != nil {
			return nil, err
		}
		if skip := r.URL.Query().Get("skip_head"); skip != "" {
			if _, err := strconv.ParseBool(skip); err != nil {
				return nil, status.Error(codes.InvalidArgument, err.Error())
			}
		}
		return s.TSDBSnapshot(ctx, req)
	})
	handle("clean_tombstones", func(ctx context.Context, _ *http.Request, body []byte) (proto.Message, error) {
		req := &adminpb.TSDBCleanTombstonesRequest{}
		if err := fromJSON(body, req); err != nil {
			return nil, err
		}
		return s.TSDBCleanTombstones(ctx, req)
	})
	handle("delete_series", func(ctx context.Context, _ *http.Request, body []byte) (proto.Message, error) {
		req := &adminpb.SeriesDeleteRequest{}
		if err := fromJSON(body, req); err != nil {
			return nil, err
		}
		return s.DeleteSeries(ctx, req)
	})
}

func fromJSON(body []byte, to proto.Message) error {
	if len(body) == 0 {
		return nil
	}
	if err := protojson.Unmarshal(body, to); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return nil
}

func (a *API) gateway(call func(ctx context.Context, r *http.Request, body []byte) (proto.Message, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		httputil.SetCORS(w, a.cfg.CORSOrigin, r)
		w.Header().Set(headerNode, a.cfg.Cluster.ID())
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxGatewayBody))
		if err != nil {
			respondStatus(w, status.Error(codes.InvalidArgument, fmt.Sprintf("read body: %v", err)))
			return
		}
		// The read timeout of the server would end a long wait; the request has been read.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		answer, err := call(r.Context(), r, bytes.TrimSpace(body))
		if err != nil {
			respondStatus(w, err)
			return
		}
		text, err := protojson.Marshal(answer)
		if err != nil {
			respondStatus(w, status.Error(codes.Internal, err.Error()))
			return
		}
		writeJSON(w, http.StatusOK, json.RawMessage(text)) // which also evens out the spaces that protojson varies
	}
}

// respondStatus answers a failure in the form of the old gateway.
func respondStatus(w http.ResponseWriter, err error) {
	s := status.Convert(err)
	code := http.StatusInternalServerError
	switch s.Code() {
	case codes.InvalidArgument:
		code = http.StatusBadRequest
	case codes.Unavailable:
		code = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	case codes.DeadlineExceeded:
		code = http.StatusGatewayTimeout
	}
	writeJSON(w, code, struct {
		Error string     `json:"error"`
		Code  codes.Code `json:"code"`
	}{s.Message(), s.Code()})
}
