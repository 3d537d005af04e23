// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/adminpb"
	"github.com/deucaliondb/deucalion/api/internal/solo"
	"github.com/deucaliondb/deucalion/cluster"
)

// dial serves i on a real port, in the way of the program, and connects a client.
func (i *instance) dial(t *testing.T, tls bool) (*grpc.ClientConn, *httptest.Server) {
	t.Helper()
	server := httptest.NewUnstartedServer(i.handler)
	trust := insecure.NewCredentials()
	if tls {
		server.EnableHTTP2 = true
		server.StartTLS()
		trust = credentials.NewTLS(server.Client().Transport.(*http.Transport).TLSClientConfig)
	} else {
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP1(true)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
	}
	t.Cleanup(server.Close)
	conn, err := grpc.NewClient(server.Listener.Addr().String(), grpc.WithTransportCredentials(trust))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn, server
}

func eq(name, value string) *adminpb.LabelMatcher {
	return &adminpb.LabelMatcher{Type: adminpb.LabelMatcher_EQ, Name: name, Value: value}
}

func callTime(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestGRPCAdmin(t *testing.T) {
	for _, tls := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS=%v", tls), func(t *testing.T) {
			i := newInstance(t, nil)
			conn, server := i.dial(t, tls)
			admin, ctx := adminpb.NewAdminClient(conn), callTime(t)
			last := i.write(t, "a", 1, 2, 3)
			i.write(t, "b", 1)
			var header metadata.MD
			at := timestamppb.New(time.Unix(last, 0))
			_, err := admin.DeleteSeries(ctx, &adminpb.SeriesDeleteRequest{
				MinTime: at, MaxTime: at, Matchers: []*adminpb.LabelMatcher{eq("__name__", "a"), {Type: adminpb.LabelMatcher_RE, Name: "job", Value: "j|k"}},
			}, grpc.Header(&header))
			require.NoError(t, err)
			require.Len(t, header.Get("X-Deucalion-Index"), 1)
			require.Equal(t, []string{`{__name__="a", job="j"} 2`, `{__name__="b", job="j"} 1`}, i.series(t, `{job="j"}`))

			_, err = admin.DeleteSeries(ctx, &adminpb.SeriesDeleteRequest{Matchers: []*adminpb.LabelMatcher{{Type: adminpb.LabelMatcher_NEQ, Name: "__name__", Value: "b"}}})
			require.NoError(t, err)
			require.Equal(t, []string{`{__name__="b", job="j"} 1`}, i.series(t, `{job="j"}`))
			_, err = admin.TSDBCleanTombstones(ctx, &adminpb.TSDBCleanTombstonesRequest{})
			require.NoError(t, err)
			snapshot, err := admin.TSDBSnapshot(ctx, &adminpb.TSDBSnapshotRequest{SkipHead: true})
			require.NoError(t, err)
			require.Regexp(t, `^\d{8}T\d{6}Z-[0-9a-f]{16}$`, snapshot.Name)

			res, err := server.Client().Get(server.URL + "/-/healthy") // the same port still speaks HTTP
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, 200, res.StatusCode)
		})
	}
}

// wire is a message that the test has put together byte by byte, by the numbers of the old document.
type wire struct{ sent, got []byte }

type wireCodec struct{}

func (wireCodec) Marshal(v any) ([]byte, error)      { return v.(*wire).sent, nil }
func (wireCodec) Unmarshal(data []byte, v any) error { v.(*wire).got = slices.Clone(data); return nil }
func (wireCodec) Name() string                       { return "proto" }

func TestGRPCAdminOnTheWire(t *testing.T) {
	i := newInstance(t, nil)
	conn, _ := i.dial(t, false)
	ctx := callTime(t)
	i.write(t, "a", 1)
	i.write(t, "b", 1)
	var matcher, request []byte
	matcher = protowire.AppendTag(matcher, 1, protowire.VarintType)
	matcher = protowire.AppendVarint(matcher, 3) // NRE
	matcher = protowire.AppendString(protowire.AppendTag(matcher, 2, protowire.BytesType), "__name__")
	matcher = protowire.AppendString(protowire.AppendTag(matcher, 3, protowire.BytesType), "b|c")
	past := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1) // 1970-01-01T00:00:01Z
	request = protowire.AppendBytes(protowire.AppendTag(request, 1, protowire.BytesType), past)
	request = protowire.AppendBytes(protowire.AppendTag(request, 3, protowire.BytesType), matcher)
	m := &wire{sent: request}
	require.NoError(t, conn.Invoke(ctx, "/prometheus.Admin/DeleteSeries", m, m, grpc.ForceCodec(wireCodec{})))
	require.Empty(t, m.got)
	require.Equal(t, []string{`{__name__="b", job="j"} 1`}, i.series(t, `{job="j"}`))

	m = &wire{sent: protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)}
	require.NoError(t, conn.Invoke(ctx, "/prometheus.Admin/TSDBSnapshot", m, m, grpc.ForceCodec(wireCodec{})))
	number, typ, n := protowire.ConsumeTag(m.got)
	require.Equal(t, [2]int{1, int(protowire.BytesType)}, [2]int{int(number), int(typ)})
	name, _ := protowire.ConsumeString(m.got[n:])
	require.Regexp(t, `^\d{8}T\d{6}Z-[0-9a-f]{16}$`, name)
	require.NoError(t, conn.Invoke(ctx, "/prometheus.Admin/TSDBCleanTombstones", &wire{}, &wire{}, grpc.ForceCodec(wireCodec{})))
	require.Equal(t, codes.Unimplemented, status.Code(conn.Invoke(ctx, "/prometheus.Admin/Other", &wire{}, &wire{}, grpc.ForceCodec(wireCodec{}))))
}

func TestGRPCReflection(t *testing.T) {
	i := newInstance(t, nil)
	conn, _ := i.dial(t, false)
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(callTime(t))
	require.NoError(t, err)
	require.NoError(t, stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "prometheus.Admin"},
	}))
	answer, err := stream.Recv()
	require.NoError(t, err)
	var methods []string
	for _, text := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := &descriptorpb.FileDescriptorProto{}
		require.NoError(t, proto.Unmarshal(text, file))
		for _, s := range file.Service {
			for _, m := range s.Method {
				methods = append(methods, file.GetPackage()+"."+s.GetName()+"/"+m.GetName()+" "+m.GetInputType())
			}
		}
	}
	require.Equal(t, []string{
		"prometheus.Admin/TSDBSnapshot .prometheus.TSDBSnapshotRequest",
		"prometheus.Admin/TSDBCleanTombstones .prometheus.TSDBCleanTombstonesRequest",
		"prometheus.Admin/DeleteSeries .prometheus.SeriesDeleteRequest",
	}, methods)
	require.NoError(t, stream.CloseSend())
}

// adminCase is a delete that fails, over gRPC and as JSON.
type adminCase struct {
	state   solo.State
	request *adminpb.SeriesDeleteRequest
	json    string
	code    codes.Code
	http    int
	text    string
}

func adminCases() map[string]adminCase {
	ok := &adminpb.SeriesDeleteRequest{Matchers: []*adminpb.LabelMatcher{eq("a", "b")}}
	const okJSON = `{"matchers":[{"type":"EQ","name":"a","value":"b"}]}`
	return map[string]adminCase{
		"no matcher": {solo.State{}, &adminpb.SeriesDeleteRequest{}, `{}`, codes.InvalidArgument, 400, "no matchers provided"},
		"min > max": {
			solo.State{},
			&adminpb.SeriesDeleteRequest{MinTime: timestamppb.New(time.Unix(2, 0)), MaxTime: timestamppb.New(time.Unix(1, 0)), Matchers: ok.Matchers},
			`{"min_time":"1970-01-01T00:00:02Z","max_time":"1970-01-01T00:00:01Z","matchers":[{"name":"a","value":"b"}]}`,
			codes.InvalidArgument, 400, "min time must be before max time",
		},
		"bad regexp": {
			solo.State{},
			&adminpb.SeriesDeleteRequest{Matchers: []*adminpb.LabelMatcher{{Type: adminpb.LabelMatcher_RE, Name: "a", Value: "("}}},
			`{"matchers":[{"type":"RE","name":"a","value":"("}]}`, codes.InvalidArgument, 400, "bad regexp matcher",
		},
		"unknown type": {
			solo.State{},
			&adminpb.SeriesDeleteRequest{Matchers: []*adminpb.LabelMatcher{{Type: 9, Name: "a", Value: "b"}}},
			`{"matchers":[{"type":9,"name":"a","value":"b"}]}`, codes.InvalidArgument, 400, "unknown matcher type",
		},
		"no name": {
			solo.State{},
			&adminpb.SeriesDeleteRequest{Matchers: []*adminpb.LabelMatcher{{}}},
			`{"matchers":[{}]}`, codes.InvalidArgument, 400, "matcher without a name",
		},
		"all series": {
			solo.State{},
			&adminpb.SeriesDeleteRequest{Matchers: []*adminpb.LabelMatcher{{Type: adminpb.LabelMatcher_RE, Name: "a", Value: ".*"}}},
			`{"matchers":[{"type":"RE","name":"a","value":".*"}]}`, codes.InvalidArgument, 400, "at least one matcher must leave something out",
		},
		"no quorum":   {solo.State{ProposeErr: cluster.ErrNoLeader}, ok, okJSON, codes.Unavailable, 503, "no leader"},
		"not ready":   {solo.State{ReadyErr: cluster.ErrNotReady}, ok, okJSON, codes.Unavailable, 503, ""},
		"node hangs":  {solo.State{AwaitErr: fmt.Errorf("n2: %w", context.DeadlineExceeded)}, ok, okJSON, codes.DeadlineExceeded, 504, "n2"},
		"node cannot": {solo.State{AwaitErr: fmt.Errorf("n3: disk full")}, ok, okJSON, codes.Internal, 500, "n3: disk full"},
	}
}

func TestGRPCAdminErrors(t *testing.T) {
	for name, tc := range adminCases() {
		t.Run(name, func(t *testing.T) {
			i := newInstance(t, nil)
			conn, _ := i.dial(t, false)
			i.Set(tc.state)
			_, err := adminpb.NewAdminClient(conn).DeleteSeries(callTime(t), tc.request)
			require.Equal(t, tc.code, status.Code(err), "%v", err)
			require.Contains(t, status.Convert(err).Message(), tc.text)

			a := i.do(http.MethodPost, "/api/v2/admin/tsdb/delete_series", tc.json)
			require.Equal(t, tc.http, a.code, a.text)
			require.Contains(t, a.text, tc.text)
			if tc.text != "" {
				require.EqualValues(t, tc.code, a.json(t)["code"])
			}
		})
	}
}

func TestGRPCAdminIsOffByDefault(t *testing.T) {
	i := newInstance(t, func(c *api.Config) { c.EnableAdmin = false })
	conn, _ := i.dial(t, false)
	admin := adminpb.NewAdminClient(conn)
	_, err1 := admin.TSDBSnapshot(callTime(t), &adminpb.TSDBSnapshotRequest{})
	_, err2 := admin.TSDBCleanTombstones(callTime(t), &adminpb.TSDBCleanTombstonesRequest{})
	_, err3 := admin.DeleteSeries(callTime(t), &adminpb.SeriesDeleteRequest{})
	for _, err := range []error{err1, err2, err3} {
		require.Equal(t, status.New(codes.Unavailable, "Admin APIs are disabled").String(), status.Convert(err).String())
	}
	a := i.do(http.MethodPost, "/api/v2/admin/tsdb/snapshot", "")
	require.Equal(t, 503, a.code)
	require.JSONEq(t, `{"error":"Admin APIs are disabled","code":14}`, a.text)
}

func TestAdminGateway(t *testing.T) {
	i := newInstance(t, nil)
	last := i.write(t, "a", 1, 2, 3)
	i.write(t, "b", 1)
	at := time.Unix(last, 0).UTC().Format(time.RFC3339)
	post := func(name, body string) answer { return i.do(http.MethodPost, "/api/v2/admin/tsdb/"+name, body) }
	a := post("delete_series", `{"min_time":"`+at+`","max_time":"`+at+`","matchers":[{"type":"EQ","name":"__name__","value":"a"},{"type":"RE","name":"job","value":"j.*"}]}`)
	require.Equal(t, 200, a.code, a.text)
	require.Equal(t, `{}`, strings.TrimSpace(a.text))
	require.Equal(t, []string{`{__name__="a", job="j"} 2`, `{__name__="b", job="j"} 1`}, i.series(t, `{job="j"}`))
	a = post("snapshot?skip_head=true", "")
	require.Equal(t, 200, a.code, a.text)
	require.Regexp(t, `^\{"name":"\d{8}T\d{6}Z-[0-9a-f]{16}"\}$`, a.text)
	a = post("clean_tombstones", "")
	require.Equal(t, 200, a.code, a.text)
	require.Equal(t, `{}`, a.text)
	require.Equal(t, 400, post("snapshot?skip_head=x", "").code)
	require.Equal(t, 400, post("delete_series", "{").code)
	require.Equal(t, 400, post("delete_series", `{"nonsense":1}`).code)
	require.Equal(t, 405, i.get("/api/v2/admin/tsdb/snapshot").code)
}
